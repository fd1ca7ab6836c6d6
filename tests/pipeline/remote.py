"""What tests of remote roots look at, past all that is tested: the objects themselves."""

import hashlib
import json
import re

from kerasline.pipeline.storage import roots
from kerasline.pipeline.storage.artifact_root import MANIFEST
from tests.conftest import REPOSITORY

QUICK = REPOSITORY / "tests" / "pipeline" / "quick.py"
BULKY = REPOSITORY / "tests" / "pipeline" / "bulky.py"


def object_store(url):
    """Return the store itself, accessed without the tested code."""
    import fsspec

    files, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    files.invalidate_cache()
    return files, path


def objects(url):
    files, path = object_store(url)
    skip = len(path) + 1
    return {name[skip:]: files.cat_file(name) for name in files.find(path)}


def visible(url):
    """Return the published folders after checking every file of their manifests by its digest."""
    found = objects(f"{url}/artifacts")
    folders = [name.removesuffix(f"/{MANIFEST}") for name in found if name.endswith(MANIFEST)]
    for folder in folders:
        for output, facts in json.loads(found[f"{folder}/{MANIFEST}"])["outputs"].items():
            for name, file in facts["files"].items():
                content = found[f"{folder}/{output}/{name}"]
                assert hashlib.sha256(content).hexdigest() == file["sha256"]
    return folders


def number(place):
    return (roots.local(place) / "number.txt").read_text()


def requests_made(log, since):
    return re.findall(r'"((?:GET|PUT|HEAD|POST|DELETE) \S+)', log.read_text()[since:])
