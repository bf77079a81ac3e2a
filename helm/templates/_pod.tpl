{{/* What every pod of the release has in common, the test's too. */}}

{{- define "responses-worker.podCommon" -}}
serviceAccountName: {{ include "responses-worker.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{- define "responses-worker.containerCommon" -}}
image: {{ include "responses-worker.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
envFrom:
  - configMapRef:
      name: {{ include "responses-worker.fullname" . }}
{{- end -}}

{{- define "responses-worker.env" -}}
- name: WORKER_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "responses-worker.redisSecret" . }}
      key: {{ .Values.redis.keys.url }}
{{- if .Values.config.routes }}
- name: WORKER_CONFIG_FILE
  value: /etc/responses-worker/routes/routes.toml
{{- else }}
- name: WORKER_UPSTREAM_API_KEY_FILE
  value: /run/secrets/upstream/{{ ternary .Values.upstream.key "api-key" (not (empty .Values.upstream.csi)) }}
{{- end }}
{{- if .Values.caBundle.configMap }}
- name: SSL_CERT_FILE
  value: /run/secrets/ca/ca.crt
{{- end }}
{{- with .Values.sentry.existingSecret }}
- name: SENTRY_DSN
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.sentry.key }}
- name: SENTRY_TRACES_SAMPLE_RATE
  value: {{ $.Values.sentry.tracesSampleRate | quote }}
{{- end }}
- name: SENTRY_ENVIRONMENT {{- /* log lines carry it as well */}}
  value: {{ .Values.sentry.environment | quote }}
- name: SENTRY_RELEASE
  value: {{ printf "%s@%s" .Chart.Name (default .Chart.AppVersion .Values.image.tag) | quote }}
{{- with .Values.runbookUrl }}
- name: WORKER_RUNBOOK_URL
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "responses-worker.volumeMounts" -}}
- name: tmp
  mountPath: /tmp
{{- if .Values.config.routes }}
- name: routes
  mountPath: /etc/responses-worker/routes
  readOnly: true
- name: gateway
  mountPath: /run/secrets/gateway
  readOnly: true
{{- else }}
- name: upstream
  mountPath: /run/secrets/upstream
  readOnly: true
{{- end }}
{{- if or .Values.redis.keys.ca .Values.redis.ca.configMap }}
- name: redis-ca
  mountPath: /run/secrets/redis
  readOnly: true
{{- end }}
{{- if .Values.caBundle.configMap }}
- name: ca-bundle
  mountPath: /run/secrets/ca
  readOnly: true
{{- end }}
{{- end -}}

{{- define "responses-worker.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- if .Values.config.routes }}
- name: routes
  configMap:
    name: {{ include "responses-worker.fullname" . }}-routes
- name: gateway
  projected:
    defaultMode: 288  # 0440
    sources:
      {{- range .Values.config.keySecrets }}
      - secret:
          name: {{ . }}
      {{- end }}
{{- else }}
- name: upstream
  {{- if .Values.upstream.csi }}
  csi:
    {{- toYaml (merge (dict) .Values.upstream.csi (dict "readOnly" true)) | nindent 4 }}
  {{- else }}
  secret:
    secretName: {{ include "responses-worker.upstreamSecret" . }}
    defaultMode: 288  # 0440
    items:
      - key: {{ .Values.upstream.key }}
        path: api-key
  {{- end }}
{{- end }}
{{- with .Values.caBundle }}
{{- if .configMap }}
- name: ca-bundle
  configMap:
    name: {{ .configMap }}
    items:
      - key: {{ .key }}
        path: ca.crt
{{- end }}
{{- end }}
{{- with .Values.redis.ca }}
{{- if .configMap }}
- name: redis-ca
  configMap:
    name: {{ .configMap }}
    items:
      - key: {{ .key }}
        path: ca.crt
{{- end }}
{{- end }}
{{- with .Values.redis.keys.ca }}
- name: redis-ca
  secret:
    secretName: {{ include "responses-worker.redisSecret" $ }}
    defaultMode: 288  # 0440
    items:
      - key: {{ . }}
        path: ca.crt
{{- end }}
{{- end -}}

{{/* What the ConfigMap holds: settings that all groups have in common. */}}
{{- define "responses-worker.settings" -}}
{{- if not .Values.config.routes }}
WORKER_UPSTREAM_URL: {{ .Values.upstream.url | quote }}
WORKER_REQUESTS_PER_MINUTE: {{ int64 .Values.upstream.requestsPerMinute | toString | quote }}
WORKER_TOKENS_PER_MINUTE: {{ int64 .Values.upstream.tokensPerMinute | toString | quote }}
WORKER_MAX_IN_FLIGHT: {{ int64 .Values.upstream.maxInFlight | toString | quote }}
{{- end }}
WORKER_BURST_SECONDS: {{ .Values.upstream.burstSeconds | toString | quote }}
WORKER_REQUEST_TIMEOUT: {{ printf "%ds" (int .Values.requestTimeoutSeconds) | quote }}
WORKER_SHUTDOWN_GRACE: {{ printf "%ds" (int .Values.shutdown.graceSeconds) | quote }}
WORKER_HTTP_PORT: "8080"
{{- range $name, $value := mergeOverwrite (dict "WORKER_LOG_FORMAT" "json") .Values.settings }}
{{ $name }}: {{ ternary (int64 $value) $value (kindIs "float64" $value) | toString | quote }}
{{- end }}
{{- end -}}

{{/* New pods when settings or Secrets of ours change; the chart's own version alone changes no pod. */}}
{{- define "responses-worker.checksums" -}}
checksum/config: {{ list (include "responses-worker.settings" .) (include "responses-worker.config" .) | join "" | sha256sum }}
checksum/secret: {{ list .Values.redis.url .Values.upstream.apiKey | toJson | sha256sum }}
{{- end -}}
