{{/*
How many pods a group gets: ceil(min(work, useful) / concurrency).

Work is what waits in the group's lanes, priority sub-lists too, and what is in flight. Useful is what the rate budget
can keep in flight (Little's law, with a quarter to spare): a pod beyond it earns nothing but 429s. Groups share it as
the workers do: by weight, and what one leaves another may use. Work that is parked for later keeps one pod, because
somebody must wake it.

Workers compute it (worker/operations/scaling.py): any one of the fleet keeps, for each group, a list in Redis that is
as long as the group needs pods. KEDA counts that list: one trigger a group. Where no group keeps a pod, there may be
nobody to count. Then each group also watches the lists of its own lanes, and one message starts one pod.
(dict "root" "name" "group" "groups") for all of these.
*/}}

{{/* Calls that the budget can keep in flight, or 0 where it is unknown; the sum of those of all accounts. */}}
{{- define "responses-worker.useful" -}}
{{- $upstream := .root.Values.upstream -}}
{{- $limits := list (dict "requests_per_minute" $upstream.requestsPerMinute "tokens_per_minute" $upstream.tokensPerMinute "max_in_flight" $upstream.maxInFlight) -}}
{{- if .root.Values.config.routes -}}
{{- $limits = values .root.Values.config.accounts -}}
{{- end -}}
{{- $sum := 0 -}}
{{- $unknown := false -}}
{{- range $limits -}}
{{- $useful := include "responses-worker.usefulOf" (dict "upstream" $upstream "limits" .) | int -}}
{{- $sum = add $sum $useful -}}
{{- $unknown = or $unknown (not $useful) -}}
{{- end -}}
{{- ternary 0 $sum $unknown -}}
{{- end -}}

{{/* The same of one account: (dict "upstream" .Values.upstream "limits" $account). */}}
{{- define "responses-worker.usefulOf" -}}
{{- $upstream := .upstream -}}
{{- $rates := list -}}
{{- if .limits.requests_per_minute -}}
{{- $rates = append $rates (float64 .limits.requests_per_minute) -}}
{{- end -}}
{{- if .limits.tokens_per_minute -}}
{{- $rates = append $rates (divf .limits.tokens_per_minute $upstream.tokensPerRequest) -}}
{{- end -}}
{{- $slots := list -}}
{{- range $rate := $rates -}}
{{- $slots = append $slots (mulf $rate $upstream.p95Seconds 1.25 | mulf (divf 1.0 60.0)) -}}
{{- end -}}
{{- if .limits.max_in_flight -}}
{{- $slots = append $slots (float64 .limits.max_in_flight) -}}
{{- end -}}
{{- $least := 0.0 -}}
{{- range $slots -}}
{{- $least = ternary . (minf $least .) (eq $least 0.0) -}}
{{- end -}}
{{/* Rounded to a millionth first: 100.00000000000001 calls are 100. */}}
{{- ceil (round $least 6) | int -}}
{{- end -}}

{{- define "responses-worker.maxReplicas" -}}
{{- $useful := include "responses-worker.useful" . | int -}}
{{- $asked := int .group.autoscaling.maxReplicas -}}
{{- $affordable := divf $useful (int .group.concurrency) | ceil | int -}}
{{- if not $useful -}}
{{- default 10 $asked -}}
{{- else if $asked -}}
{{- min $asked $affordable -}}
{{- else -}}
{{- $affordable -}}
{{- end -}}
{{- end -}}

{{/* Pods that there are whatever happens; 0: the whole fleet may be away. */}}
{{- define "responses-worker.residents" -}}
{{- $most := 0 -}}
{{- range .groups -}}
{{- if or .autoscaling.keda.enabled .autoscaling.hpa.enabled -}}
{{- $most = max $most (int .autoscaling.minReplicas) -}}
{{- else -}}
{{- $most = max $most (kindIs "invalid" .replicas | ternary 1 .replicas | int) -}}
{{- end -}}
{{- end -}}
{{- $most -}}
{{- end -}}

{{/* What workers are told, as JSON: Plan in worker/operations/scaling.py. */}}
{{- define "responses-worker.plan" -}}
{{- $plan := dict -}}
{{- range $name, $group := .groups -}}
{{- $scope := dict "root" $.root "name" $name "group" $group "groups" $.groups -}}
{{- $lanes := dict -}}
{{- range $lane, $weight := $group.lanes -}}
{{- $_ := set $lanes $lane (int $weight) -}}
{{- end -}}
{{- $most := include "responses-worker.maxReplicas" $scope | int -}}
{{- if not (or $group.autoscaling.keda.enabled $group.autoscaling.hpa.enabled) -}}
{{- $most = kindIs "invalid" $group.replicas | ternary 1 $group.replicas | int -}}
{{- end -}}
{{- $_ := set $plan $name (dict "lanes" $lanes "concurrency" (int $group.concurrency) "most" (max 1 $most)) -}}
{{- end -}}
{{- dict "useful" (include "responses-worker.useful" . | int) "groups" $plan | toJson -}}
{{- end -}}

{{/* The file of the plan in a pod; empty where KEDA scales no group. */}}
{{- define "responses-worker.scalingFile" -}}
{{- $wanted := false -}}
{{- range . -}}
{{- $wanted = or $wanted .autoscaling.keda.enabled -}}
{{- end -}}
{{- if $wanted -}}
/etc/responses-worker/scaling/scaling.json
{{- end -}}
{{- end -}}

{{/* Lists of its own lanes that a group watches where nobody may be there to count them: name to key. */}}
{{- define "responses-worker.wakers" -}}
{{- $found := dict -}}
{{- if not (include "responses-worker.residents" . | int) -}}
{{- range $lane, $_ := .group.lanes -}}
{{- $id := replace "-" "_" $lane -}}
{{- $_ := set $found (printf "ready_%s" $id) (printf "responses.%s" $lane) -}}
{{- range $priority := list "3" "6" "9" -}}
{{/* kombu's separator between a queue and its priority. */}}
{{- $_ := set $found (printf "ready%s_%s" $priority $id) (printf "responses.%s\x06\x16%s" $lane $priority) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{/* Valid for KEDA's expr-lang and, so that tests can evaluate it, for Python. */}}
{{- define "responses-worker.formula" -}}
{{- $wakers := include "responses-worker.wakers" . | fromYaml -}}
{{- if $wakers -}}
{{- printf "max(pods, min(%s, 1.0))" (keys $wakers | sortAlpha | join " + ") -}}
{{- else -}}
pods
{{- end -}}
{{- end -}}

{{/* One trigger: (dict "root" "name" "key" "target"). It counts a list, a hash or a sorted set by what it finds. */}}
{{- define "responses-worker.trigger" -}}
{{- $redis := .root.Values.redis -}}
{{- $database := $redis.database -}}
{{- $tls := $redis.tls -}}
{{- if $redis.url -}}
{{- $parts := include "responses-worker.redisParts" .root | fromYaml -}}
{{- $database = $parts.database -}}
{{- $tls = $parts.tls -}}
{{- end -}}
- type: {{ ternary "redis-sentinel" "redis" (not (empty $redis.sentinelMaster)) }}
  name: {{ .name }}
  metadata:
    listName: {{ .key | quote }}
    listLength: {{ .target | quote }}
    databaseIndex: {{ int $database | toString | quote }}
    enableTLS: {{ $tls | toString | quote }}
    {{- with $redis.sentinelMaster }}
    sentinelMaster: {{ . | quote }}
    {{- end }}
  authenticationRef:
    name: {{ include "responses-worker.fullname" .root }}
{{- end -}}

{{- define "responses-worker.triggers" -}}
{{- $fleet := default "default" .root.Values.settings.WORKER_FLEET -}}
{{- $pods := dict "pods" (printf "responses:scaling:%s:%s" $fleet .name) -}}
{{- range $trigger, $key := merge $pods (include "responses-worker.wakers" . | fromYaml) }}
{{ include "responses-worker.trigger" (dict "root" $.root "name" $trigger "key" $key "target" "1") }}
{{- end -}}
{{- end -}}

{{/* KEDA's parameter to the entry of the Redis Secret that holds it. */}}
{{- define "responses-worker.kedaKeys" -}}
{{- $redis := .Values.redis -}}
{{ ternary "addresses" "address" (not (empty $redis.sentinelMaster)) }}: {{ $redis.keys.address }}
{{- if $redis.url }}
{{- $parts := include "responses-worker.redisParts" . | fromYaml }}
{{- if $parts.username }}
username: redis-username
{{- end }}
{{- if $parts.password }}
password: redis-password
{{- end }}
{{- else }}
{{- with $redis.keys.username }}
username: {{ . }}
{{- end }}
{{- with $redis.keys.password }}
password: {{ . }}
{{- end }}
{{- with $redis.keys.ca }}
ca: {{ . }}
{{- end }}
{{- end }}
{{- end -}}
