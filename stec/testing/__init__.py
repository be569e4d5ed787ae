"""The contract between the core and a modality, as checks that the author of one runs.

On the command line: `stec-doctor plugin NAME`. In a test of the modality's own:

    @pytest.mark.parametrize("case", stec.testing.cases("NAME"), ids=str)
    def test_contract(case): case()
"""

from stec.testing.contract import Case, Finding, cases, check
from stec.testing.fault import Fault

__all__ = ["Case", "Fault", "Finding", "cases", "check"]
