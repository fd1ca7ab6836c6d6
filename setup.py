"""Which folders become which packages; everything else is in setup.cfg.

components/, pipeline/ and schemas/ lie beside kerasline/ in the checkout, and in it where it is installed.
"""

from setuptools import find_packages, setup

setup(
    packages=["kerasline", "kerasline.schemas"]
    + [f"kerasline.{name}" for name in find_packages(include=["components*", "pipeline*"])],
    package_dir={
        "kerasline": "kerasline",
        "kerasline.components": "components",
        "kerasline.pipeline": "pipeline",
        "kerasline.schemas": "schemas",
    },
)
