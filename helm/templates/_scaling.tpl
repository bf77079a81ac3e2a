{{/*
How many pods a group gets: ceil(min(work, useful) / concurrency).

Work is what waits in the group's lanes, priority sub-lists too, and what is in flight. Useful is what the rate budget
can keep in flight (Little's law, with a quarter to spare): a pod beyond it earns nothing but 429s. Groups share it as
the workers do: by weight, and what one leaves another may use. Work that is parked for later keeps one pod, because
somebody must wake it. (dict "root" "name" "group" "groups") for all of these.
*/}}

{{/* Calls that the budget can keep in flight, or 0 where it is unknown. */}}
{{- define "responses-worker.useful" -}}
{{- $upstream := .root.Values.upstream -}}
{{- $rates := list -}}
{{- if $upstream.requestsPerMinute -}}
{{- $rates = append $rates (float64 $upstream.requestsPerMinute) -}}
{{- end -}}
{{- if $upstream.tokensPerMinute -}}
{{- $rates = append $rates (divf $upstream.tokensPerMinute $upstream.tokensPerRequest) -}}
{{- end -}}
{{- $slots := list -}}
{{- range $rate := $rates -}}
{{- $slots = append $slots (mulf $rate $upstream.p95Seconds 1.25 | mulf (divf 1.0 60.0)) -}}
{{- end -}}
{{- if $upstream.maxInFlight -}}
{{- $slots = append $slots (float64 $upstream.maxInFlight) -}}
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

{{/* The names of the triggers that count one lane's work. */}}
{{- define "responses-worker.laneWork" -}}
{{- $id := replace "-" "_" . -}}
{{- printf "ready_%s + ready3_%s + ready6_%s + ready9_%s + inflight_%s" $id $id $id $id $id -}}
{{- end -}}

{{/* Valid for KEDA's expr-lang and, so that tests can evaluate it, for Python. */}}
{{- define "responses-worker.formula" -}}
{{- $useful := include "responses-worker.useful" . | int -}}
{{- $own := list -}}
{{- $parked := list -}}
{{- $others := list -}}
{{- $weight := 0 -}}
{{- $weights := 0 -}}
{{- range $name, $group := .groups -}}
{{- range $lane, $laneWeight := $group.lanes -}}
{{- $weights = add $weights (int $laneWeight) -}}
{{- if eq $name $.name -}}
{{- $own = append $own (include "responses-worker.laneWork" $lane) -}}
{{- $parked = append $parked (printf "parked_%s" (replace "-" "_" $lane)) -}}
{{- $weight = add $weight (int $laneWeight) -}}
{{- else -}}
{{- $others = append $others (include "responses-worker.laneWork" $lane) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $work := join " + " $own -}}
{{- if and $useful $others -}}
{{- $share := divf (mulf $useful $weight) $weights -}}
{{- $work = printf "min(%s, max(%.3f, %d.0 - (%s)))" $work $share $useful (join " + " $others) -}}
{{- else if $useful -}}
{{- $work = printf "min(%s, %d.0)" $work $useful -}}
{{- end -}}
{{- printf "max(%s, min(%s, 1.0))" $work (join " + " $parked) -}}
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

{{/* Own lanes with what is parked; other groups' lanes only where the budget is shared with them. */}}
{{- define "responses-worker.triggers" -}}
{{- $useful := include "responses-worker.useful" . | int -}}
{{- $target := int .group.concurrency | toString -}}
{{- range $name, $group := .groups -}}
{{- if or (eq $name $.name) $useful -}}
{{- range $lane, $_ := $group.lanes -}}
{{- $id := replace "-" "_" $lane -}}
{{- $counted := dict (printf "ready_%s" $id) (printf "responses.%s" $lane) (printf "inflight_%s" $id) (printf "responses:inflight:%s" $lane) -}}
{{- range $priority := list "3" "6" "9" -}}
{{/* kombu's separator between a queue and its priority. */}}
{{- $_ := set $counted (printf "ready%s_%s" $priority $id) (printf "responses.%s\x06\x16%s" $lane $priority) -}}
{{- end -}}
{{- if eq $name $.name -}}
{{- $_ := set $counted (printf "parked_%s" $id) (printf "responses:delayed:%s" $lane) -}}
{{- end -}}
{{- range $trigger, $key := $counted }}
{{ include "responses-worker.trigger" (dict "root" $.root "name" $trigger "key" $key "target" $target) }}
{{- end -}}
{{- end -}}
{{- end -}}
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
