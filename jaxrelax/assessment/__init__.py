"""Is it true: accuracy against known truth, calibration, saved results and the report."""

from jaxrelax.assessment.accuracy import (
    RegisterAccuracy,
    consensus_error,
    matching_rows,
    register_accuracy,
)
from jaxrelax.assessment.against_truth import AgainstTruth
from jaxrelax.assessment.answers import Answer, answers, two_resolutions
from jaxrelax.assessment.calibration import Calibration, brier_score, calibration
from jaxrelax.assessment.chimerax import chimerax_script, contour_levels
from jaxrelax.assessment.findings import consequence, headline, warnings
from jaxrelax.assessment.hand_over import Step
from jaxrelax.assessment.independence import (
    IndependenceTest,
    likelihood_ratio_test,
    wald_test,
)
from jaxrelax.assessment.next_steps import next_steps
from jaxrelax.assessment.occupancy import Populations, populations
from jaxrelax.assessment.oracle import OracleAccuracy, oracle_registers
from jaxrelax.assessment.partner import partner_ball
from jaxrelax.assessment.pattern_oracle import PatternAccuracy, oracle_patterns
from jaxrelax.assessment.register_prediction import predict_registers
from jaxrelax.assessment.report import report_html, write_report
from jaxrelax.assessment.report_every import ReportEvery
from jaxrelax.assessment.run_comparison import (
    FinishedRun,
    RunAgreement,
    compare_runs,
    read_finished_run,
)
from jaxrelax.assessment.saving import save, symmetry_summary
from jaxrelax.assessment.states import (
    StateAccuracy,
    adjusted_rand,
    area_under_roc,
    confusion_matrix,
    match_states,
    registers_within,
    state_accuracy,
)
from jaxrelax.assessment.strip import Strip
from jaxrelax.judgement import Discriminability

__all__ = [
    "AgainstTruth",
    "Answer",
    "Calibration",
    "Discriminability",
    "FinishedRun",
    "IndependenceTest",
    "OracleAccuracy",
    "PatternAccuracy",
    "Populations",
    "RegisterAccuracy",
    "ReportEvery",
    "RunAgreement",
    "StateAccuracy",
    "Step",
    "Strip",
    "adjusted_rand",
    "answers",
    "area_under_roc",
    "brier_score",
    "calibration",
    "chimerax_script",
    "compare_runs",
    "confusion_matrix",
    "consensus_error",
    "consequence",
    "contour_levels",
    "headline",
    "likelihood_ratio_test",
    "match_states",
    "matching_rows",
    "next_steps",
    "oracle_patterns",
    "oracle_registers",
    "partner_ball",
    "populations",
    "predict_registers",
    "read_finished_run",
    "register_accuracy",
    "registers_within",
    "report_html",
    "save",
    "state_accuracy",
    "symmetry_summary",
    "two_resolutions",
    "wald_test",
    "warnings",
    "write_report",
]
