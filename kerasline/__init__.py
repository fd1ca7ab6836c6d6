"""Pipelines for Keras 3 on TensorFlow, in TFX-style stages chained and run by Apache Beam.

>>> import kerasline as kl
>>> examples = kl.CsvExampleGen("trips.csv")
>>> statistics = kl.StatisticsGen(examples)
>>> kl.Pipeline("trips", [statistics]).order
['ExampleGen', 'StatisticsGen']

The public names are listed in `__init__.pyi`; each is imported when it is first used, so that importing kerasline
imports neither TensorFlow nor Beam.
"""

from pathlib import Path

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# In a checkout, components/ and pipeline/ lie beside this folder. An installed kerasline has them within it.
_CHECKOUT = Path(__file__).resolve().parent.parent
if not Path(__file__).with_name("components").is_dir() and (_CHECKOUT / "components").is_dir():
    __path__.append(str(_CHECKOUT))
