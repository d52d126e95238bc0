#!/bin/sh
# Chooses a builder for a key, such as a repository's name: the same key meets the same builder, and what that has cached, for
# as long as it is there. A builder more takes its share of keys from all others, and no key moves between those; the keys of one
# that is gone are shared among the rest.
#
#   buildctl --addr "$(choose-builder.sh app)" build …
#   choose-builder.sh [-n NAMESPACE] [-l LABELS] [-t FORM] [-a] KEY [POD…]
#
#   -n  namespace of the pods
#   -l  labels that they have (app=buildkitd); those that are ready are asked for with kubectl unless PODs are named
#   -t  form of what is printed, in which %s is the pod (kube-pod://%s), such as tcp://%s.buildkitd:1234
#   -a  all of them, the first choice first
set -eu
namespace= labels=app=buildkitd form= all=
usage() { sed -n 's/^#   //p' "$0" >&2; exit 2; }
while getopts an:l:t: option; do
  case $option in
    a) all=1 ;;
    n) namespace=$OPTARG ;;
    l) labels=$OPTARG ;;
    t) form=$OPTARG ;;
    *) usage ;;
  esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] && [ -n "$1" ] || usage
key=$1
shift
: "${form:=kube-pod://%s${namespace:+?namespace=$namespace}}"

# Names of pods that are ready, one a line.
ready='{{range .items}}{{$name := .metadata.name}}{{range .status.conditions}}{{if and (eq .type "Ready") (eq .status "True")}}{{$name}}{{"\n"}}{{end}}{{end}}{{end}}'
if [ $# -gt 0 ]; then
  pods=$(printf '%s\n' "$@")
else
  pods=$(kubectl get pods ${namespace:+"--namespace=$namespace"} "--selector=$labels" "--output=go-template=$ready")
fi
[ -n "$pods" ] || { echo "choose-builder.sh: no pod with $labels is ready${namespace:+ in $namespace}" >&2; exit 1; }

# Rendezvous hashing: each builder draws a number for the key, and the highest wins. Who else is there changes no number.
drawn() {
  printf '%s\n' "$pods" | while read -r pod; do
    number=$(printf '%s\n%s' "$key" "$pod" | sha256sum)
    printf '%s %s\n' "${number%% *}" "$pod"
  done
}
drawn | LC_ALL=C sort -r | while read -r _ pod; do
  # shellcheck disable=SC2059 # the form is the caller's
  printf "$form\n" "$pod"
  [ -n "$all" ] || break
done
