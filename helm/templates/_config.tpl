{{/* The file that WORKER_CONFIG_FILE names, where there are several routes. */}}

{{- define "responses-worker.toml" -}}
{{- if kindIs "map" . -}}
{ {{- range $at, $name := keys . | sortAlpha }}{{ if $at }},{{ end }} {{ toJson $name }} = {{ include "responses-worker.toml" (get $ $name) }}{{ end }} }
{{- else if and (kindIs "float64" .) (eq . (floor .)) -}}
{{ int64 . }}
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end -}}

{{/* A route that names no key has it in the entry of its own name in one of the mounted Secrets. */}}
{{- define "responses-worker.config" -}}
{{- range $kind := list "accounts" "routes" "models" }}
{{- range $name, $table := get $.Values.config $kind }}
{{- $table = merge (dict) $table }}
{{- if and (eq $kind "routes") (not $table.key_file) (not $table.key_env) }}
{{- $_ := set $table "key_file" (printf "/run/secrets/gateway/%s" $name) }}
{{- end }}
[{{ $kind }}.{{ toJson $name }}]
{{- range $key, $value := $table }}
{{ $key }} = {{ include "responses-worker.toml" $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
