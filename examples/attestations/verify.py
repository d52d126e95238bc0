#!/usr/bin/env python3
"""Verifies what is attested of an image, with nothing of crosskit in it: skopeo reads the image, sigstore's models of in-toto and
SLSA and the validator of spdx-tools judge what is said of it.

    pip install sigstore spdx-tools        # and apt-get install skopeo
    verify.py docker://registry.example/app:1
    verify.py oci:target/demo/image --need https://slsa.dev/provenance/v1 --need https://spdx.dev/Document

For each platform: that an attestation manifest is in the index and names the image's digest, that each statement is about this
digest and nothing else, that its predicate is valid, and that an SBOM names no layer that the image hasn't. Fails if something
is not so, or if a platform lacks a predicate that --need names.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from sigstore.dsse import Statement
from sigstore.dsse._predicate import SLSAPredicateV0_2, SLSAPredicateV1_0
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

SPDX = "https://spdx.dev/Document"
# What BuildKit and crosskit add to SLSA's metadata, which has room for it; how v0.2 spells one of them.
EXTENSIONS = ("buildkit_", "crosskit_", "https://mobyproject.org/buildkit@v1#")
RENAMED = {"buildInvocationID": "buildInvocationId"}


class Wrong(Exception):
    pass


def need(holds, what):
    if not holds:
        raise Wrong(what)


def standard(metadata):
    kept = {key: value for key, value in metadata.items() if not key.startswith(EXTENSIONS)}
    return {RENAMED.get(key, key): value for key, value in kept.items()}


def provenance_v1(predicate, _):
    predicate["runDetails"]["metadata"] = standard(predicate["runDetails"]["metadata"])
    told = SLSAPredicateV1_0.model_validate(predicate)
    materials = told.build_definition.resolved_dependencies or []
    need(all(material.digest for material in materials), "a material without a digest")
    return f"{len(materials)} materials"


def provenance_v02(predicate, _):
    predicate["metadata"] = standard(predicate["metadata"])
    told = SLSAPredicateV0_2.model_validate(predicate)
    need(all(material.digest for material in told.materials or []), "a material without a digest")
    return f"{len(told.materials or [])} materials"


def sbom(predicate, layers):
    document = JsonLikeDictParser().parse(predicate)
    wrong = validate_full_spdx_document(document)
    need(not wrong, "; ".join(message.validation_message for message in wrong[:3]))
    for file in document.files:
        if (file.comment or "").startswith("layerID: "):
            need(file.comment.removeprefix("layerID: ") in layers, f"{file.name} is in a layer that the image hasn't")
    return f"{document.creation_info.name}: {len(document.packages) - 1} packages, {len(document.files)} files"


JUDGES = {
    "https://slsa.dev/provenance/v1": provenance_v1,
    "https://slsa.dev/provenance/v0.2": provenance_v02,
    SPDX: sbom,
}


def statements(folder, entry):
    """The statements of an attestation manifest, as they are."""
    manifest = json.loads((folder / f"{entry['digest'].split(':')[1]}.manifest.json").read_bytes())
    for layer in manifest["layers"]:
        need(layer["mediaType"] == "application/vnd.in-toto+json", f"a layer of type {layer['mediaType']}")
        content = (folder / layer["digest"].split(":")[1]).read_bytes()
        told = json.loads(content)
        need(layer["annotations"]["in-toto.io/predicate-type"] == told["predicateType"], "another predicate than announced")
        yield content, told


def verify(folder, wanted):
    index = json.loads((folder / "manifest.json").read_bytes())
    need("manifests" in index, "one image without an index, so nothing is attested of it")
    about = {}
    for entry in index["manifests"]:
        marks = entry.get("annotations", {})
        if marks.get("vnd.docker.reference.type") == "attestation-manifest":
            about.setdefault(marks["vnd.docker.reference.digest"], []).append(entry)
    for image in index["manifests"]:
        platform = "/".join(filter(None, (image["platform"].get(part) for part in ("os", "architecture", "variant"))))
        if platform == "unknown/unknown":
            continue
        digest = image["digest"]
        attesting = about.pop(digest, [])
        need(attesting, f"{platform}: no attestation manifest")
        manifest = json.loads((folder / f"{digest.split(':')[1]}.manifest.json").read_bytes())
        layers = {layer["digest"] for layer in manifest["layers"]}
        seen = set()
        for content, told in (one for entry in attesting for one in statements(folder, entry)):
            kind = told["predicateType"]
            try:
                # sigstore's model refuses what is no statement of in-toto.
                Statement(content)
                subjects = {f"{name}:{value}" for one in told["subject"] for name, value in one["digest"].items()}
                need(subjects == {digest}, f"about {sorted(subjects)}, not {digest}")
                need(kind in JUDGES, "nobody here can judge it")
                says = JUDGES[kind](told["predicate"], layers)
            except Exception as why:
                raise Wrong(f"{platform}: {kind}: {why}") from why
            seen.add(kind)
            print(f"{platform:<14} {kind:<34} {says}")
        need(not wanted - seen, f"{platform}: there is no {sorted(wanted - seen)}")
    need(not about, f"attested of images that aren't here: {sorted(about)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", help="as skopeo names it: docker://…, oci:…, oci-archive:…")
    parser.add_argument("--need", action="append", default=[], help="the type of a predicate that each platform has to have")
    parser.add_argument("--insecure", action="store_true", help="the registry speaks HTTP")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        tls = ["--src-tls-verify=false"] if asked.insecure else []
        # skopeo checks every digest on its way.
        subprocess.run(["skopeo", "copy", "--quiet", "--all", *tls, asked.image, f"dir:{folder}"], check=True)
        try:
            verify(folder, set(asked.need))
        except Wrong as why:
            sys.exit(f"verify: {why}")


if __name__ == "__main__":
    main()
