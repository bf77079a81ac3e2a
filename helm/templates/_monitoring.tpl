{{/* Prometheus' view of one release. */}}

{{/* An expression with every metric of ours narrowed to this release: (dict "root" "expr"). */}}
{{- define "responses-worker.scoped" -}}
{{- $own := printf "namespace=%q,job=%q" .root.Release.Namespace .root.Release.Name -}}
{{/* In two steps, since a selector may be there or not; RE2 cannot look ahead. */}}
{{- $marked := regexReplaceAll "responses_worker_([a-z_]+)[{]" .expr (printf "OURS_${1}{%s," $own) -}}
{{- regexReplaceAll "responses_worker_([a-z_]+)" $marked (printf "responses_worker_${1}{%s}" $own) | replace "OURS_" "responses_worker_" -}}
{{- end -}}

{{/* An alert's expression with the release's objective, and its own limit at the end: (dict "root" "expr" "own"). */}}
{{- define "responses-worker.threshold" -}}
{{- $budget := round (subf 1.0 .root.Values.prometheusRule.objective) 6 -}}
{{- $expr := regexReplaceAll "[*] 0[.]01([^0-9]|$)" .expr (printf "* %v${1}" $budget) -}}
{{- if hasKey .own "threshold" -}}
{{- $expr = regexReplaceAll "> [0-9.]+$" $expr (printf "> %v" .own.threshold) -}}
{{- end -}}
{{- $expr -}}
{{- end -}}

{{/* max(min(ready + in flight, useful), min(parked, 1)), from what every worker shows alike of Redis. */}}
{{- define "responses-worker.scalingLoad" -}}
{{- $state := printf "sum(max by (lane) (responses_worker_lane_messages{%s,state=\"%%s\"}))" .lanes -}}
{{- $work := printf "(%s + %s)" (printf $state "ready") (printf $state "in_flight") -}}
{{- if .useful -}}
{{- $work = printf "clamp_max(%s, %d)" $work .useful -}}
{{- end -}}
{{- $expr := printf "clamp_min(%s, scalar(clamp_max(%s, 1)))" $work (printf $state "parked") -}}
{{- include "responses-worker.scoped" (dict "root" .root "expr" $expr) -}}
{{- end -}}

{{/* Who may read metrics. The label is the one that Prometheus' operator gives the pods of Prometheus. */}}
{{- define "responses-worker.metricsFrom" -}}
{{- with .Values.networkPolicy.metricsFrom -}}
{{- toYaml . -}}
{{- else -}}
- podSelector: {}
{{- if or .Values.podMonitor.enabled .Values.serviceMonitor.enabled }}
- namespaceSelector: {}
  podSelector:
    matchLabels:
      app.kubernetes.io/name: prometheus
{{- end -}}
{{- end -}}
{{- end -}}
