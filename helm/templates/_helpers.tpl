{{/* What this chart calls its objects: the release, and the chart unless the release says it. */}}
{{- define "eligibility-gateway.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" (.Release.Name | trunc (sub 44 (len $name) | int) | trimSuffix "-") $name -}}
{{- end -}}
{{- end -}}

{{/* The value of `job`: the rules ask for `(.+-)?eligibility-gateway`, and two installations must not share one. */}}
{{- define "eligibility-gateway.job" -}}
{{- $name := include "eligibility-gateway.fullname" . -}}
{{- if regexMatch "^(.+-)?eligibility-gateway$" $name -}}
{{- $name -}}
{{- else -}}
{{- printf "%s-eligibility-gateway" $name -}}
{{- end -}}
{{- end -}}

{{/* What never changes while a release lives, for an object's selector forbids it. Argument: [root, component]. */}}
{{- define "eligibility-gateway.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 | quote }}
{{- end -}}

{{/* The labels of a pod: a chart that is new and changes nothing of it restarts nothing. Argument: [root, component, its own]. */}}
{{- define "eligibility-gateway.podLabels" -}}
{{- $root := index . 0 -}}
{{ include "eligibility-gateway.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: eligibility-gateway
{{- /* Joined first: a key that stands twice is no YAML. */ -}}
{{- $own := dict -}}
{{- if gt (len .) 2 -}}{{- $own = default dict (index . 2) -}}{{- end -}}
{{- with mergeOverwrite (dict) (default dict $root.Values.commonLabels) $own }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The labels of every other object. Argument: [root, component, its own]. */}}
{{- define "eligibility-gateway.labels" -}}
{{- $root := index . 0 -}}
{{ include "eligibility-gateway.podLabels" . }}
app.kubernetes.io/managed-by: {{ $root.Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{/* An image's name. Argument: [image, tag if it names none]. */}}
{{- define "eligibility-gateway.image" -}}
{{- $image := index . 0 -}}
{{- with $image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository }}
{{- with default (index . 1) $image.tag }}:{{ . }}{{ end }}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{- define "eligibility-gateway.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "eligibility-gateway.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "eligibility-gateway.policiesName" -}}
{{- default (printf "%s-policies" (include "eligibility-gateway.fullname" .)) .Values.existingPolicies.configMap -}}
{{- end -}}

{{- define "eligibility-gateway.certificateSecretName" -}}
{{- default (printf "%s-tls" (include "eligibility-gateway.fullname" .)) .Values.certificate.secretName -}}
{{- end -}}

{{/* The volumes of certificates and CAs, as YAML; each is mounted whole, so that it is updated. */}}
{{- define "eligibility-gateway.tlsVolumes" -}}
{{- $volumes := list -}}
{{- $pair := list (dict "key" "tls.crt" "path" "tls.crt") (dict "key" "tls.key" "path" "tls.key") -}}
{{- $ca := list (dict "key" "ca.crt" "path" "ca.crt") -}}
{{- if .Values.tls.enabled -}}
{{- $name := default (include "eligibility-gateway.certificateSecretName" .) .Values.tls.secretName -}}
{{- $volumes = append $volumes (dict "name" "tls" "secret" (dict "secretName" $name "defaultMode" 288 "items" $pair)) -}}
{{- with .Values.tls.clients.caSecretName -}}
{{- $volumes = append $volumes (dict "name" "tls-clients" "secret" (dict "secretName" . "defaultMode" 288 "items" $ca)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.upstream.caConfigMap -}}
{{- $volumes = append $volumes (dict "name" "upstream-ca" "configMap" (dict "name" . "items" $ca)) -}}
{{- end -}}
{{- with .Values.upstream.certificateSecretName -}}
{{- $volumes = append $volumes (dict "name" "upstream-tls" "secret" (dict "secretName" . "defaultMode" 288 "items" $pair)) -}}
{{- end -}}
{{- toYaml $volumes -}}
{{- end -}}

{{/* The files of the policies' ConfigMap, as YAML: those that are shipped, overridden and added to by values. */}}
{{- define "eligibility-gateway.policies" -}}
{{- $files := dict -}}
{{- range $path, $_ := .Files.Glob "policies/*.yaml" -}}
{{- $_ := set $files (base $path) ($.Files.Get $path) -}}
{{- end -}}
{{- range $name, $text := .Values.policies -}}
{{- if $text -}}
{{- $_ := set $files $name $text -}}
{{- else -}}
{{- $_ := unset $files $name -}}
{{- end -}}
{{- end -}}
{{- toYaml $files -}}
{{- end -}}

{{/* A setting's value as the program reads it. JSON writes 1048576 where Go would write 1.048576e+06. */}}
{{- define "eligibility-gateway.settingValue" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}

{{/* What a setting is: stated, or the program's default. Argument: [root, name]. */}}
{{- define "eligibility-gateway.effective" -}}
{{- $stated := (index . 0).Values.settings -}}
{{- $defaults := (index . 0).Files.Get "files/settings.yaml" | fromYaml -}}
{{- $name := index . 1 -}}
{{- /* Not `merge`: it takes a stated 0 for nothing stated. */ -}}
{{- if hasKey $stated $name -}}
{{- include "eligibility-gateway.settingValue" (get $stated $name) -}}
{{- else -}}
{{- include "eligibility-gateway.settingValue" (get $defaults $name) -}}
{{- end -}}
{{- end -}}

{{/* Seconds of a duration such as 2m15s. Argument: its text. */}}
{{- define "eligibility-gateway.seconds" -}}
{{- $seconds := 0.0 -}}
{{- $units := dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 -}}
{{- $seconds = addf $seconds (mulf (regexFind "^[0-9]+" . | float64) (get $units (regexFind "[a-z]+$" .))) -}}
{{- end -}}
{{- $seconds -}}
{{- end -}}

{{/* Seconds from the end of a pod's life being announced to the end of its last request. */}}
{{- define "eligibility-gateway.drainSeconds" -}}
{{- $grace := include "eligibility-gateway.effective" (list . "drain_grace_s") | float64 -}}
{{- $drain := include "eligibility-gateway.effective" (list . "drain_timeout_s") | float64 -}}
{{- addf .Values.preStopSleepSeconds $grace $drain | ceil | int -}}
{{- end -}}

{{/* How the admin port is scraped. Argument: [root, values of the monitor]. */}}
{{- define "eligibility-gateway.scrape" -}}
{{- $monitor := index . 1 -}}
path: /metrics
{{- with $monitor.interval }}
interval: {{ . | quote }}
{{- end }}
{{- with $monitor.scrapeTimeout }}
scrapeTimeout: {{ . | quote }}
{{- end }}
relabelings:
  {{- with $monitor.relabelings }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  # Last: the rules and the dashboard go by it.
  - action: replace
    targetLabel: job
    replacement: {{ include "eligibility-gateway.job" (index . 0) | quote }}
{{- with $monitor.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
