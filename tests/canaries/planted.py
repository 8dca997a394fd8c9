"""The canaries: synthetic, unlike anything else, and told apart by where they are planted."""

import base64
import hashlib
from typing import Final

# What callers send.
FAMILY: Final = "Quornbrakspear"
GIVEN: Final = "Zoëlla Ygwen/+"
MEMBER: Final = "WQX93KZ55PLMD07"
BORN: Final = "18930727"
BORN_DASHED: Final = "1893-07-27"
SSN: Final = "987-65-4329"  # of a range that is never issued
COOKIE: Final = "ckz.Vb7TtqW02xJcookie"
ASKED: Final = (FAMILY, GIVEN, MEMBER, BORN, BORN_DASHED, SSN, COOKIE)

# What the upstream answers.
PLAN: Final = "Plumbago Gilt 7731"
GROUP: Final = "GRPX5501ZZKW"
UPSTREAM_COOKIE: Final = "uck.Rm4NpsQ81yLset"
ANSWERED: Final = (PLAN, GROUP, UPSTREAM_COOKIE)

# What nobody but its owner may see.
TOKEN: Final = "tok_eJ8wVq2Zr6Yb1Nn5canary"
CLIENT_ID: Final = "cid_Wd7KpT3mXcanary"
CLIENT_SECRET: Final = "csec_Hs4Fg9Lk0Qcanary"
REDIS_PASSWORD: Final = "rpw_Bn6Ju1Xv5Tcanary"
ISSUER_WORDS: Final = "iss_Ud2Oz8My3Gcanary"
CALLER_SECRET: Final = "call_Ak5Rt0Ec7Pcanary0123456789abcdef"
STRANGER_SECRET: Final = "strg_Il9Yw4Db6Scanary0123456789abcdef"
SHADOW_SECRET: Final = "shad_Cq1Vf8Hz2Ncanary0123456789abcdef"
HASTY_SECRET: Final = "hast_Gx3Mj7Lp5Rcanary0123456789abcdef"
PACED_SECRET: Final = "pace_Lw9Rb3Tn6Kcanary0123456789abcdef"
BRIEF_SECRET: Final = "brie_Ey4Ua8Xd1Jcanary0123456789abcdef"
OTHER_SECRET: Final = "othr_Tb0Ks6Wn9Fcanary0123456789abcdef"
KEY: Final = base64.b64encode(hashlib.sha256(b"canary").digest()).decode()
OURS: Final = (
    *(TOKEN, CLIENT_ID, CLIENT_SECRET, REDIS_PASSWORD, ISSUER_WORDS, KEY.rstrip("=")),
    *(CALLER_SECRET, STRANGER_SECRET, SHADOW_SECRET, HASTY_SECRET, BRIEF_SECRET, PACED_SECRET, OTHER_SECRET),
)

ALL: Final = (*ASKED, *ANSWERED, *OURS)
