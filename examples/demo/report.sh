#!/bin/sh
# Runs as the target platform: this script, separately named programs, and a pipeline. They are named with
# their folders because some builds of busybox's shell run plain names within themselves.
set -e
{
  echo platform=$TARGETPLATFORM arch=$TARGETARCH variant=$TARGETVARIANT
  /bin/busybox cat /app/loud.txt | /bin/sed s/^/says=/ | /bin/cat
} > /app/report.txt
