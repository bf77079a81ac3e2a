{{/* What things are called. */}}

{{- define "responses-worker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 38 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 38 characters: with the prefix of KEDA's HPA (9) and a group's name (16) a label of 63 is full. */}}
{{- define "responses-worker.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 38 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 38 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 38 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "responses-worker.selectorLabels" -}}
app.kubernetes.io/name: {{ include "responses-worker.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "responses-worker.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "responses-worker.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The pods of one group: (dict "root" $ "name" $name). */}}
{{- define "responses-worker.groupSelectorLabels" -}}
{{ include "responses-worker.selectorLabels" .root }}
app.kubernetes.io/component: worker
worker-group: {{ .name }}
{{- end -}}

{{- define "responses-worker.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "responses-worker.serviceAccountName" -}}
{{- default (ternary (include "responses-worker.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "responses-worker.redisSecret" -}}
{{- default (include "responses-worker.fullname" .) .Values.redis.existingSecret -}}
{{- end -}}

{{- define "responses-worker.upstreamSecret" -}}
{{- default (include "responses-worker.fullname" .) .Values.upstream.existingSecret -}}
{{- end -}}

{{/* The parts of `redis.url` as YAML: address, username, password, database, tls. */}}
{{- define "responses-worker.redisParts" -}}
{{- $url := urlParse .Values.redis.url -}}
{{- $user := splitn ":" 2 $url.userinfo -}}
address: {{ printf "%s%s" $url.host (ternary "" ":6379" (regexMatch ":[0-9]+$" $url.host)) | quote }}
username: {{ include "responses-worker.unquoted" (default "" $user._0) | quote }}
password: {{ include "responses-worker.unquoted" (default "" $user._1) | quote }}
database: {{ trimPrefix "/" $url.path | default "0" | int }}
tls: {{ eq $url.scheme "rediss" }}
{{- end -}}

{{/* Percent-decoding, which urlParse does to paths. */}}
{{- define "responses-worker.unquoted" -}}
{{- trimPrefix "/" (urlParse (printf "http://host/%s" .)).path -}}
{{- end -}}
