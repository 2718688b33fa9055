"""Is it true: accuracy against known truth, calibration, saved results and the report."""

from jaxrelax.assessment.accuracy import (
    RegisterAccuracy,
    consensus_error,
    matching_rows,
    register_accuracy,
)
from jaxrelax.assessment.calibration import Calibration, brier_score, calibration
from jaxrelax.assessment.chimerax import chimerax_script, contour_levels
from jaxrelax.assessment.findings import consequence, headline, warnings
from jaxrelax.assessment.independence import (
    IndependenceTest,
    likelihood_ratio_test,
    wald_test,
)
from jaxrelax.assessment.occupancy import Populations, populations
from jaxrelax.assessment.oracle import OracleAccuracy, oracle_registers
from jaxrelax.assessment.partner import partner_ball
from jaxrelax.assessment.pattern_oracle import PatternAccuracy, oracle_patterns
from jaxrelax.assessment.register_prediction import predict_registers
from jaxrelax.assessment.report import report_html, write_report
from jaxrelax.assessment.saving import save, symmetry_summary
from jaxrelax.judgement import Discriminability

__all__ = [
    "Calibration",
    "Discriminability",
    "IndependenceTest",
    "OracleAccuracy",
    "PatternAccuracy",
    "Populations",
    "RegisterAccuracy",
    "brier_score",
    "calibration",
    "chimerax_script",
    "consensus_error",
    "consequence",
    "contour_levels",
    "headline",
    "likelihood_ratio_test",
    "matching_rows",
    "oracle_patterns",
    "oracle_registers",
    "partner_ball",
    "populations",
    "predict_registers",
    "register_accuracy",
    "report_html",
    "save",
    "symmetry_summary",
    "wald_test",
    "warnings",
    "write_report",
]
