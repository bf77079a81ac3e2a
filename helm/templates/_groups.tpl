{{/* Which groups there are, and what no schema can see about them. */}}

{{/* Every group with its defaults filled in, as YAML. Numbers come back from fromYaml as floats: say int. */}}
{{- define "responses-worker.groups" -}}
{{- $groups := dict -}}
{{- range $name, $group := .Values.workers -}}
{{- if not (kindIs "invalid" $group) -}}
{{- if not $group.lanes -}}
{{- fail (printf "workers.%s.lanes: a group needs at least one lane" $name) -}}
{{- end -}}
{{- $_ := set $groups $name (mustMergeOverwrite (deepCopy $.Values.workerDefaults) $group) -}}
{{- end -}}
{{- end -}}
{{- toYaml $groups -}}
{{- end -}}

{{/* interactive=4,batch=1 */}}
{{- define "responses-worker.lanes" -}}
{{- $pairs := list -}}
{{- range $lane, $weight := . -}}
{{- $pairs = append $pairs (printf "%s=%d" $lane (int $weight)) -}}
{{- end -}}
{{- join "," $pairs -}}
{{- end -}}

{{/* A group's own value, or the release's: (dict "root" "group"). */}}
{{- define "responses-worker.graceSeconds" -}}
{{- $own := .group.shutdown.graceSeconds -}}
{{- kindIs "invalid" $own | ternary .root.Values.shutdown.graceSeconds $own | int -}}
{{- end -}}

{{- define "responses-worker.requestTimeoutSeconds" -}}
{{- $own := .group.requestTimeoutSeconds -}}
{{- kindIs "invalid" $own | ternary .root.Values.requestTimeoutSeconds $own | int -}}
{{- end -}}

{{/* Handing back and telemetry take seconds after the grace: 2 to hand back, 5 for the pool, 5 to flush, and rest. */}}
{{- define "responses-worker.terminationGracePeriodSeconds" -}}
{{- add (include "responses-worker.graceSeconds" . | int) 20 -}}
{{- end -}}

{{/* A group's own settings, as variables that win over those of the release. */}}
{{- define "responses-worker.groupSettings" -}}
{{- $own := deepCopy .settings -}}
{{- if not (kindIs "invalid" .requestTimeoutSeconds) -}}
{{- $_ := set $own "WORKER_REQUEST_TIMEOUT" (printf "%ds" (int .requestTimeoutSeconds)) -}}
{{- end -}}
{{- if not (kindIs "invalid" .shutdown.graceSeconds) -}}
{{- $_ := set $own "WORKER_SHUTDOWN_GRACE" (printf "%ds" (int .shutdown.graceSeconds)) -}}
{{- end -}}
{{- range $name, $value := $own }}
- name: {{ $name }}
  value: {{ ternary (int64 $value) $value (kindIs "float64" $value) | toString | quote }}
{{- end -}}
{{- end -}}

{{/* Fails with what would be right. */}}
{{- define "responses-worker.validate" -}}
{{- $groups := include "responses-worker.groups" . | fromYaml -}}
{{- if not $groups -}}
{{- fail "workers: there must be at least one group" -}}
{{- end -}}
{{- if and .Values.redis.url .Values.redis.existingSecret -}}
{{- fail "redis.url and redis.existingSecret: give one of them" -}}
{{- end -}}
{{- if and .Values.upstream.apiKey .Values.upstream.existingSecret -}}
{{- fail "upstream.apiKey and upstream.existingSecret: give one of them" -}}
{{- end -}}
{{- if and .Values.upstream.csi (or .Values.upstream.apiKey .Values.upstream.existingSecret) -}}
{{- fail "upstream.csi, upstream.apiKey and upstream.existingSecret: give one of them" -}}
{{- end -}}
{{- if and .Values.fleetPage.enabled (not .Values.fleetPage.existingSecret) -}}
{{- fail "fleetPage.existingSecret: the page is behind a token; name the Secret that holds it" -}}
{{- end -}}
{{- if and .Values.redis.ca.configMap .Values.redis.keys.ca -}}
{{- fail "redis.ca.configMap and redis.keys.ca: give one of them" -}}
{{- end -}}
{{- if and .Values.networkPolicy.extraEgress (not .Values.networkPolicy.redis.to) -}}
{{- fail "networkPolicy.extraEgress: without networkPolicy.redis.to nothing limits what pods reach; say where Redis is" -}}
{{- end -}}
{{- if and .Values.podMonitor.enabled (eq "loopback" (default "" .Values.settings.WORKER_METRICS_FROM)) -}}
{{- fail "podMonitor and settings.WORKER_METRICS_FROM loopback: Prometheus could read nothing; a scraper in extraContainers could" -}}
{{- end -}}
{{- include "responses-worker.validateLanes" $groups -}}
{{- range $name, $group := $groups -}}
{{- include "responses-worker.validateGroup" (dict "root" $ "name" $name "group" $group "groups" $groups) -}}
{{- end -}}
{{- end -}}

{{/* Triggers are named after lanes, and each lane's work must be counted for one group only. */}}
{{- define "responses-worker.validateLanes" -}}
{{- $owners := dict -}}
{{- range $name, $group := . -}}
{{- range $lane, $_ := $group.lanes -}}
{{- $owner := get $owners (replace "-" "_" $lane) -}}
{{- if $owner -}}
{{- fail (printf "workers.%s.lanes: lane %s is served by workers.%s too; both would be scaled for all of its work" $name $lane $owner) -}}
{{- end -}}
{{- $_ := set $owners (replace "-" "_" $lane) $name -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "responses-worker.validateGroup" -}}
{{- $grace := include "responses-worker.graceSeconds" . | int -}}
{{- $timeout := include "responses-worker.requestTimeoutSeconds" . | int -}}
{{- if and (lt $grace $timeout) (not (or .root.Values.shutdown.interruptCalls .group.shutdown.interruptCalls)) -}}
{{- fail (printf "workers.%s: shutdown.graceSeconds %d is below requestTimeoutSeconds %d: calls that are cut would be paid for twice. Raise the one, lower the other, or set shutdown.interruptCalls" .name $grace $timeout) -}}
{{- end -}}
{{- $scaling := .group.autoscaling -}}
{{- $scaled := or $scaling.keda.enabled $scaling.hpa.enabled -}}
{{- if and $scaling.keda.enabled $scaling.hpa.enabled -}}
{{- fail (printf "workers.%s.autoscaling: keda and hpa would fight over the replicas; enable one of them" .name) -}}
{{- end -}}
{{- if and $scaled (not (kindIs "invalid" .group.replicas)) -}}
{{- fail (printf "workers.%s.replicas: the autoscaler decides them; leave them out or disable it" .name) -}}
{{- end -}}
{{- if $scaled -}}
{{- $most := include "responses-worker.maxReplicas" . | int -}}
{{- if gt (int $scaling.minReplicas) $most -}}
{{- fail (printf "workers.%s.autoscaling.minReplicas %d is above the %d pods that autoscaling.maxReplicas and the budget allow" .name (int $scaling.minReplicas) $most) -}}
{{- end -}}
{{- if and (gt $most 100) (not (int $scaling.maxReplicas)) -}}
{{- fail (printf "workers.%s: the budget asks for %d pods of concurrency %d; raise the concurrency, correct upstream.p95Seconds, or set autoscaling.maxReplicas" .name $most (int .group.concurrency)) -}}
{{- end -}}
{{- end -}}
{{- if and $scaling.keda.enabled (or (contains "sentinel:" .root.Values.redis.url) (contains "unix:" .root.Values.redis.url)) -}}
{{- fail "redis.url: KEDA needs a host; for Sentinel use redis.existingSecret and redis.sentinelMaster" -}}
{{- end -}}
{{- if and $scaling.hpa.enabled (eq (int $scaling.minReplicas) 0) (semverCompare "<1.37.0-0" .root.Capabilities.KubeVersion.Version) -}}
{{- fail (printf "workers.%s.autoscaling.minReplicas: an HPA scales to zero from Kubernetes 1.37 on" .name) -}}
{{- end -}}
{{- $budget := .group.podDisruptionBudget -}}
{{- if and $budget.enabled (hasKey $budget "minAvailable") (not (kindIs "invalid" $budget.minAvailable)) (not (kindIs "invalid" $budget.maxUnavailable)) -}}
{{- fail (printf "workers.%s.podDisruptionBudget: maxUnavailable and minAvailable exclude each other; set one of them to null" .name) -}}
{{- end -}}
{{- end -}}
