{{/* What templates share. Names are fixed, so there is one fleet in a namespace: programs and certificates know them. */}}

{{/* Labels by which pods are selected; call with (list . "component"). */}}
{{- define "fleetknock.selector" -}}
app.kubernetes.io/name: fleetknock
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels of pods: those, and what it is a part of. Nothing that changes with a version, which would restart them. */}}
{{- define "fleetknock.podLabels" -}}
{{ include "fleetknock.selector" . }}
app.kubernetes.io/part-of: fleetknock
{{- end }}

{{/* Labels of objects. */}}
{{- define "fleetknock.labels" -}}
{{ include "fleetknock.podLabels" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ (index . 0).Chart.Name }}-{{ (index . 0).Chart.Version }}
{{- end }}

{{/* Name, namespace and labels; call with (list . "component" "name"). */}}
{{- define "fleetknock.metadata" -}}
name: {{ index . 2 }}
namespace: {{ (index . 0).Release.Namespace }}
labels:
  {{- include "fleetknock.labels" . | nindent 2 }}
{{- end }}

{{/* An image; call with (list . "controller"). */}}
{{- define "fleetknock.image" -}}
{{- $v := (index . 0).Values.image -}}
{{ $v.registry }}{{ index $v (index . 1) }}:{{ $v.tag | default (index . 0).Chart.AppVersion }}
{{- end }}

{{- define "fleetknock.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What every container but the agent's may: nothing. */}}
{{- define "fleetknock.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What is in a pod's environment from the pod itself; call with a list of names. */}}
{{- define "fleetknock.env" -}}
{{- $fields := dict "POD_NAME" "metadata.name" "POD_NAMESPACE" "metadata.namespace" "NODE_NAME" "spec.nodeName" "NODE_IP" "status.hostIP" -}}
{{- range . }}
- name: {{ . }}
  valueFrom: {fieldRef: {apiVersion: v1, fieldPath: {{ index $fields . }}}}
{{- end }}
{{- end }}

{{/* Keeps pods of a component off each other's nodes; call with (list . "component" "preferred"). */}}
{{- define "fleetknock.affinity" -}}
{{- $how := index . 2 -}}
{{- if eq $how "required" }}
affinity:
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "fleetknock.selector" . | nindent 12 }}
{{- else if eq $how "preferred" }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "fleetknock.selector" . | nindent 14 }}
{{- end }}
{{- end }}

{{/* A volume for each pod of a StatefulSet; call with (list . "component" "name" persistence). */}}
{{- define "fleetknock.claim" -}}
- metadata:
    name: {{ index . 2 }}
    labels:
      {{- include "fleetknock.podLabels" . | nindent 6 }}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with (index . 3).storageClass }}
    storageClassName: {{ . }}
    {{- end }}
    resources: {requests: {storage: {{ (index . 3).size }}}}
{{- end }}

{{/* The names of the controllers, each of which has a certificate. */}}
{{- define "fleetknock.controllers" -}}
{{- $names := list -}}
{{- range $i := until (int .Values.controller.replicas) }}{{ $names = append $names (printf "fleetknock-controller-%d" $i) }}{{ end -}}
{{ join "," $names }}
{{- end }}

{{/* Where the fleet is kept. */}}
{{- define "fleetknock.store" -}}
{{- if eq .Values.controller.store "embedded" -}}
embedded:/var/lib/fleetknock/controller
{{- else if .Values.etcd.deploy -}}
etcd:http://fleetknock-etcd-0.fleetknock-etcd:2379,http://fleetknock-etcd-1.fleetknock-etcd:2379,http://fleetknock-etcd-2.fleetknock-etcd:2379
{{- else -}}
etcd:{{ join "," .Values.etcd.existing.endpoints }}
{{- end }}
{{- end }}

{{/* Whose doors count. */}}
{{- define "fleetknock.doorsOf" -}}
{{ .Values.doors.namespace | default .Release.Namespace }}
{{- end }}

{{/* Whether the controllers ask the API server for anything. */}}
{{- define "fleetknock.asksApi" -}}
{{- if or .Values.doors.enabled .Values.agent.enabled }}true{{ end }}
{{- end }}
