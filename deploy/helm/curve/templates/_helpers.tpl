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
