{{- define "cartwheel.name" -}}
{{- if contains "cartwheel" .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-cartwheel" .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "cartwheel.nodes" -}}
{{ include "cartwheel.name" . }}-nodes
{{- end -}}

{{- define "cartwheel.selector" -}}
app.kubernetes.io/name: cartwheel
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "cartwheel.labels" -}}
{{ include "cartwheel.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- /* How the first administrator is named to the nodes: the only place. */ -}}
{{- define "cartwheel.admin" -}}
- name: CARTWHEEL_ADMIN_PASSWORD_FILE
  value: /etc/cartwheel/admin/{{ .Values.admin.key }}
{{- end -}}

{{- define "cartwheel.check" -}}
{{- if not (or .Values.insecure (and .Values.tls.secretName .Values.admin.secretName)) -}}
{{- fail "the pods listen where others can connect: set tls.secretName and admin.secretName, or insecure=true for a network in which every host is trusted" -}}
{{- end -}}
{{- if and .Values.bootstrap .Values.seeds -}}
{{- fail "a release with seeds joins their cluster: set bootstrap=false" -}}
{{- end -}}
{{- end -}}
