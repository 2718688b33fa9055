"""A report of a run that goes on."""

from __future__ import annotations

import time

from jaxrelax.assessment.report import write_report
from jaxrelax.assessment.strip import Strip
from jaxrelax.io import OutputFolder
from jaxrelax.refinement import Callback, Problem, State, StepInfo, finish, finish_states
from jaxrelax.refinement.described import described


class ReportEvery(Callback):
    """Write ``report.html`` of the state so far, every so many iterations.

    It takes the passes that the end of a run takes: images are scored once more, and accumulated to
    Nyquist. The run itself does not change. Symmetries between the group and what is kept are not
    tested.
    """

    def __init__(
        self,
        folder: OutputFolder,
        every: int,
        command: str | None = None,
        strip: Strip | None = None,
    ):
        """Into a folder that is there when the run starts.

        Args:
            folder: of the run.
            every: so many iterations.
            command: that made the run, as the report shows it.
            strip: what keeps maps of iterations, called before this is.
        """
        self.folder, self.every, self.command, self.strip = folder, every, command, strip
        self._began = time.perf_counter()

    def on_step(self, problem: Problem, state: State, info: StepInfo) -> None:
        """Write it, if it is time."""
        if info.iteration % self.every:
            return
        settings = {"relax": described(problem.plan.relax), "command": self.command}
        ended = {
            "reason": f"it has not: this is iteration {info.iteration} of a run that goes on",
            "seconds": time.perf_counter() - self._began,
            "settings": settings,
        }
        if len(problem.of_maps) > 1:
            result = finish_states(problem, state, **ended)
        else:
            result = finish(problem, state, subgroups="none", **ended)
        # Every process takes part in the passes; one writes.
        if problem.execution.workers.writes:
            result = result if self.strip is None else self.strip.added_to(result)
            write_report(result, self.folder / "report.html")
