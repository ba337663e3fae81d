"""Judges objects by the schemas of Kubernetes, strictly: a field that is unknown or given twice is an error.

    validate.py SCHEMAS VERSION... < objects.json
        JSON on standard output: a list of complaints, each with the object and the version

What is not Kubernetes' own (the resources of cert-manager and of the Prometheus operator, definitions of resources) is
judged by the file KIND.json in the folder SCHEMAS, which lists the fields that those projects document.
"""

import functools
import json
import pathlib
import sys

import jsonschema
import kubernetes_validate

NOT_THEIRS = ("cert-manager.io/", "monitoring.coreos.com/", "fleetknock.io/")


def complaint(which, version, error):
    where = "/".join(str(part) for part in error.absolute_path)
    return f"{which} ({version}): {where}: {error.message}"


def main():
    folder, *versions = sys.argv[1:]
    versions = [kubernetes_validate.latest_version() if v == "newest" else v for v in versions]
    # The definitions of a version are megabytes: read once.
    utils = kubernetes_validate.utils
    utils.schema_contents = functools.cache(utils.schema_contents)
    complaints = []
    # What several cases have alike is judged once.
    for one in {json.dumps(one, sort_keys=True): one for one in json.load(sys.stdin)}.values():
        which = f"{one['kind']} {one['metadata']['name']}"
        if one["apiVersion"].startswith(NOT_THEIRS):
            schema = json.loads(pathlib.Path(folder, f"{one['kind']}.json").read_text(encoding="utf-8"))
            errors = jsonschema.Draft202012Validator(schema).iter_errors(one)
            complaints += [complaint(which, one["apiVersion"], error) for error in errors]
            continue
        for version in versions:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                complaints.append(complaint(which, version, error))
            except kubernetes_validate.SchemaNotFoundError as error:
                complaints.append(f"{which}: {error.message}")
    json.dump(complaints, sys.stdout, indent=1)


main()
