"""A simulated gateway: `POST /v1/responses` with exact rate budgets and every failure worth surviving.

A prompt says what becomes of its call. `[[sim:500]]` fails every call of the prompt, `[[sim:500*2]]` the
first two, `[[sim:500*2]] [[sim:429]]` takes turns. `[[id:xyz]]` tags the call in the log. Calls without a
marker meet what `SimulatorConfig.fault_rates` says, or a good answer: `Echo: ` and the last input item, cut
to `max_output_tokens`.

| marker | what the call meets |
|---|---|
| `[[sim:302]]` | 302: a login page elsewhere |
| `[[sim:400]]` | 400 with `invalid_value` |
| `[[sim:404]]` | 404 with `model_not_found` |
| `[[sim:408]]` | 408 with `request_timeout` |
| `[[sim:context]]` | 400 with `context_length_exceeded` |
| `[[sim:filter]]` | 400 with `content_policy_violation` |
| `[[sim:sensitive-500]]` | 500 with `sensitive_words_detected`: a final refusal all the same |
| `[[sim:invalid-500]]` | 500 with `invalid_request`: the client's error all the same |
| `[[sim:no-token]]` | 401: no key was sent |
| `[[sim:401]]` | 401: new-api's answer to any dead key |
| `[[sim:401-openai]]` | 401 with `invalid_api_key` |
| `[[sim:exhausted-401]]` | 401: an empty wallet, in Chinese |
| `[[sim:403]]` | 403 with `access_denied` |
| `[[sim:quota]]` | 403 with `insufficient_user_quota`: an empty wallet at new-api |
| `[[sim:quota-429]]` | 429 with `insufficient_quota`: an empty wallet |
| `[[sim:credit-429]]` | 429 with `credit_balance_exhausted`: an empty wallet |
| `[[sim:too-dear]]` | 402: the wallet holds less than this request's price |
| `[[sim:prepaid]]` | 403 with `access_denied`: the same at new-api, in Chinese |
| `[[sim:429]]`, `[[sim:429=SECONDS]]` | 429 with `rate_limit_exceeded`: a Retry-After of 1 or SECONDS |
| `[[sim:slow-down]]`, `[[sim:slow-down=SECONDS]]` | 429 with `slow_down`: a Retry-After of 1 or SECONDS |
| `[[sim:429-empty]]` | 429: no body, no Retry-After, as new-api's own limiter |
| `[[sim:429-chinese]]` | 429: a Chinese message, no code |
| `[[sim:429-html]]` | 429: a web page, as of a proxy |
| `[[sim:flex-429]]` | 429 with `resource_unavailable`: no room in this tier |
| `[[sim:too-large]]` | 429 with `rate_limit_exceeded`: larger than the whole limit, no wait helps |
| `[[sim:500]]` | 500 with `server_error` |
| `[[sim:html-502]]` | 502: a web page, as of a proxy |
| `[[sim:503]]`, `[[sim:503=SECONDS]]` | 503 with `server_is_overloaded`: a Retry-After of 1 or SECONDS |
| `[[sim:no-channel-503]]` | 503 with `model_not_found`: no channel at new-api |
| `[[sim:504]]` | 504 with `bad_response_status_code`: may be billed |
| `[[sim:524]]` | 524: a web page of Cloudflare's; may be billed |
| `[[sim:empty-200]]` | 200: no body; streamed, no events |
| `[[sim:error-200]]` | 200 with `server_error`: a top-level `error`, or `error` event |
| `[[sim:failed-200]]` | 200 with status `failed`, `server_error` |
| `[[sim:failed-rate-200]]` | 200 with status `failed`, `rate_limit_exceeded` |
| `[[sim:incomplete]]` | 200 with status `incomplete`, `max_output_tokens` |
| `[[sim:incomplete-filter]]` | 200 with status `incomplete`, `content_filter` |
| `[[sim:in-progress]]` | 200 with status `in_progress`; streamed, no terminal event |
| `[[sim:schema-break]]` | 200 whose `output` and `usage` break the contract |
| `[[sim:broken-json]]` | 200 whose JSON stops half-way |
| `[[sim:cut]]` | 200, and the connection closes half-way through the body |
| `[[sim:reset]]` | a TCP reset once the request has been read |
| `[[sim:hang]]` | no answer for as long as the client waits |
| `[[sim:slow=SECONDS]]` | an answer after SECONDS, good or the fault beside it |
| `[[sim:tokens=TOKENS]]` | a good answer of TOKENS output tokens |

Under the same address, for tests and benches: `GET` and `POST /simulator/config`, `GET /simulator/stats`,
`GET /simulator/calls[?tag=xyz]` and `DELETE /simulator/calls`; `worker.devtools.devstack.Simulator` speaks them.
"""

from worker.devtools.simulator.answers import echo
from worker.devtools.simulator.calls import CLIENT_LEFT, RESET, ReceivedCall, Stats
from worker.devtools.simulator.config import SimulatorConfig, key_alias
from worker.devtools.simulator.faults import FAULTS, Fault, fault_table
from worker.devtools.simulator.requests import estimated_tokens
from worker.devtools.simulator.script import prompt_hash
from worker.devtools.simulator.server import serve, serve_until_signalled

__all__ = [
    "CLIENT_LEFT",
    "FAULTS",
    "RESET",
    "Fault",
    "ReceivedCall",
    "SimulatorConfig",
    "Stats",
    "echo",
    "estimated_tokens",
    "fault_table",
    "key_alias",
    "prompt_hash",
    "serve",
    "serve_until_signalled",
]
