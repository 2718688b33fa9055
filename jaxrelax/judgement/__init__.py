"""What is claimed of a result: permutation tests of symmetry, and what could be told at all.

It takes images, maps, poses, noise and band, not the objects of the loop.
"""

from jaxrelax.judgement.held_out_test import asymmetry_evidence
from jaxrelax.judgement.predicted import Discriminability
from jaxrelax.judgement.prediction import discriminability, discriminability_of_halves
from jaxrelax.judgement.verdict import AsymmetryEvidence, SubgroupTest

__all__ = [
    "AsymmetryEvidence",
    "Discriminability",
    "SubgroupTest",
    "asymmetry_evidence",
    "discriminability",
    "discriminability_of_halves",
]
