"""What the page embeds: JSON that cannot end a script, the chart library, and the policy that lets no other run."""

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

import vl_convert
from markupsafe import Markup

_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def script_json(value: Any) -> Markup:
    """Returns ``value`` as JSON that is safe inside a script element: no <, > or & is left in it.

    Raises:
        ValueError: ``value`` holds NaN or infinity, which JSON has not.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_ESCAPES))


@cache
def bundle() -> Markup:
    """Returns the JavaScript of Vega, Vega-Lite and Vega-Embed, for a script element."""
    code: str = vl_convert.javascript_bundle("window.vegaEmbed=vegaEmbed;")
    if "</script" in code.lower() or "<!--" in code:
        raise RuntimeError("The JavaScript bundle of vl-convert cannot be embedded in a page.")
    return Markup(f"(()=>{{{code}}})();")


def asset(name: str) -> str:
    """Returns a text file of this package."""
    return files("raptr.report").joinpath(name).read_text(encoding="utf-8")


def policy(*scripts: str) -> str:
    """Returns the content security policy of the page: these very scripts run, nothing is ever loaded."""
    digests = (base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
