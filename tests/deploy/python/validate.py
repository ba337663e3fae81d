"""Judges objects by the schemas of Kubernetes, strictly: a field that is unknown or given twice is an error.

    validate.py SCHEMAS VERSION... < objects.json
        JSON on standard output: a list of complaints, each with the object and the version

What a definition among the objects describes is judged by the schema in it, as strictly. What else is not Kubernetes' own
(the resources of cert-manager and of the Prometheus operator) is judged by the file KIND.json in the folder SCHEMAS, which
lists the fields that those projects document.
"""

import functools
import json
import pathlib
import sys

import jsonschema
import kubernetes_validate

NOT_THEIRS = ("cert-manager.io/", "monitoring.coreos.com/")


def complaint(which, version, error):
    where = "/".join(str(part) for part in error.absolute_path)
    return f"{which} ({version}): {where}: {error.message}"


def strict(schema):
    """The same schema, by which a field that it does not name is an error. An object's metadata is everybody's."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        schema.setdefault("additionalProperties", False)
    return schema


def defined(objects):
    """The schemas of the definitions among objects, by apiVersion and kind."""
    found = {}
    for definition in (one for one in objects if one["kind"] == "CustomResourceDefinition"):
        spec = definition["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"] |= {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object", "required": ["name"]},
            }
            found[(f"{spec['group']}/{version['name']}", spec["names"]["kind"])] = schema
    return found


def main():
    folder, *versions = sys.argv[1:]
    versions = [kubernetes_validate.latest_version() if v == "newest" else v for v in versions]
    # The definitions of a version are megabytes: read once.
    utils = kubernetes_validate.utils
    utils.schema_contents = functools.cache(utils.schema_contents)
    complaints = []
    # What several cases have alike is judged once.
    objects = {json.dumps(one, sort_keys=True): one for one in json.load(sys.stdin)}.values()
    schemas = defined(objects)
    for one in objects:
        which = f"{one['kind']} {one['metadata']['name']}"
        schema = schemas.get((one["apiVersion"], one["kind"]))
        if schema is not None:
            errors = jsonschema.Draft202012Validator(schema).iter_errors(one)
            complaints += [complaint(which, one["apiVersion"], error) for error in errors]
            continue
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
