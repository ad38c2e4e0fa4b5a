{{- define "curve.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "curve.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "curve.labels" -}}
app.kubernetes.io/name: curve
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* A UUID that is the same at every rendering: of the release, its namespace and what is named. */}}
{{- define "curve.uuid" -}}
{{- $digest := printf "%s/%s/%s" .root.Release.Namespace .root.Release.Name .what | sha256sum -}}
{{- printf "%s-%s-5%s-8%s-%s" (substr 0 8 $digest) (substr 8 12 $digest) (substr 13 16 $digest) (substr 17 20 $digest) (substr 20 32 $digest) -}}
{{- end -}}

{{- define "curve.metaservers" -}}
{{- $list := list -}}
{{- range $i := until (int .Values.metaserver.replicas) -}}
{{- $list = append $list (printf "%s-metaserver-%d.%s.svc:7101" (include "curve.name" $) $i $.Release.Namespace | quote) -}}
{{- end -}}
[{{ join ", " $list }}]
{{- end -}}

{{- define "curve.seccomp" -}}
{{- if .Values.seccomp.localhostProfile -}}
type: Localhost
localhostProfile: {{ .Values.seccomp.localhostProfile }}
{{- else -}}
type: Unconfined
{{- end -}}
{{- end -}}

{{/* Names of the zone "default" have no suffix. */}}
{{- define "curve.zoneSuffix" -}}
{{- if ne .name "default" }}-{{ .name }}{{ end -}}
{{- end -}}

{{/* Labels by which a controller knows its pods. Those of the zone "default" have none of the zone:
     its selector stays as it is (one cannot be changed), and other zones' pods have their owners. */}}
{{- define "curve.zoneSelector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- if ne .zone.name "default" }}
curve.storage/zone: {{ .zone.name }}
{{- end }}
{{- end -}}

{{- define "curve.zoneReplicas" -}}
{{- if hasKey .zone "replicas" }}{{ int .zone.replicas }}{{ else }}{{ int .root.Values.chunkserver.replicas }}{{ end -}}
{{- end -}}

{{/* No node in two zones: two drivers there would take each other's socket. */}}
{{- define "curve.checkZones" -}}
{{- $names := list -}}
{{- $selectors := list -}}
{{- range .Values.zones -}}
{{- if has .name $names }}{{ fail (printf "zones: there are two named %q" .name) }}{{ end -}}
{{- $selector := toJson (default dict .nodeSelector) -}}
{{- if and (gt (len $.Values.zones) 1) (eq $selector "{}") -}}
{{- fail (printf "zones: %q needs a nodeSelector that no node of another zone fits" .name) -}}
{{- end -}}
{{- if has $selector $selectors }}{{ fail (printf "zones: %q has the nodeSelector of another zone" .name) }}{{ end -}}
{{- $set := printf "%s-chunkserver%s" (include "curve.name" $) (include "curve.zoneSuffix" .) -}}
{{- if gt (len $set) 52 }}{{ fail (printf "%s is longer than 52 characters: a shorter name of the release or the zone is needed" $set) }}{{ end -}}
{{- $names = append $names .name -}}
{{- $selectors = append $selectors $selector -}}
{{- end -}}
{{- end -}}

{{/* "zone" if there are enough with chunkservers; else the widest that is possible is taken. */}}
{{- define "curve.failureDomain" -}}
{{- $count := 0 -}}
{{- range .Values.zones -}}
{{- if ne (include "curve.zoneReplicas" (dict "root" $ "zone" .)) "0" }}{{ $count = add1 $count }}{{ end -}}
{{- end -}}
{{- if and (gt $count 1) (ge $count (int .Values.pool.replicas)) }}zone{{ end -}}
{{- end -}}
