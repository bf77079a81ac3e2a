"""Calls of the OpenAI SDK with each kind of content, tool, tool choice and item. See `sdk_calls.py`."""

from typing import Any, Final

from support.sdk_calls import FUNCTION, PIXEL, Call, create, item, parts, tool

TEXT: Final = {"type": "input_text", "text": "What is this?"}
DIRECT: Final = {"type": "direct"}
SCREENSHOT: Final = {"type": "computer_screenshot", "image_url": PIXEL}

CONTENT: Final[dict[str, Call]] = {
    "text part": parts(TEXT),
    "inline image": parts(TEXT, {"type": "input_image", "image_url": PIXEL, "detail": "high"}),
    "image by URL": parts({"type": "input_image", "image_url": "https://example.com/a.png", "detail": "original"}),
    "image without detail": parts({"type": "input_image", "image_url": "https://example.com/a.png"}),
    "image by id": parts({"type": "input_image", "file_id": "file-1", "detail": "auto", "image_url": None}),
    "inline file": parts(
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}
    ),
    "file by id": parts({"type": "input_file", "file_id": "file-1"}, role="developer"),
    "file by URL": parts({"type": "input_file", "file_url": "https://example.com/a.pdf", "detail": "low"}),
    "cache breakpoint": parts(TEXT | {"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}}),
    "kept answer": parts({"type": "output_text", "text": "x"}, role="assistant"),
    "kept refusal": parts({"type": "refusal", "refusal": "No."}, role="assistant"),
}

TOOLS: Final[dict[str, Call]] = {
    "function": tool(**FUNCTION),
    "function without strict": tool(type="function", name="now", parameters={"type": "object", "properties": {}}),
    "function without parameters": tool(type="function", name="now", parameters=None, strict=None),
    "deferred function": tool(**FUNCTION, defer_loading=True, allowed_callers=["direct", "programmatic"]),
    "file search": tool(
        type="file_search",
        vector_store_ids=["vs_1"],
        max_num_results=3,
        ranking_options={"ranker": "auto", "score_threshold": 0.5},
        filters={
            "type": "and",
            "filters": [{"type": "eq", "key": "k", "value": 1}, {"type": "in", "key": "k", "value": ["a"]}],
        },
    ),
    "web search": tool(type="web_search", filters={"allowed_domains": ["example.com"]}, search_context_size="low"),
    "web search preview": tool(type="web_search_preview", user_location={"type": "approximate", "country": "DE"}),
    "computer": tool(type="computer_use_preview", display_height=768, display_width=1024, environment="browser"),
    "code interpreter": tool(type="code_interpreter", container={"type": "auto", "file_ids": ["file-1"]}),
    "code interpreter by container": tool(type="code_interpreter", container="cntr_1"),
    "image generation": tool(type="image_generation", size="1024x1024", quality="low", partial_images=1),
    "MCP": tool(
        type="mcp",
        server_label="wiki",
        server_url="https://example.com/mcp",
        headers={"x-key": "v"},
        allowed_tools=["ask"],
        require_approval={"never": {"tool_names": ["ask"]}},
    ),
    "MCP for everything": tool(type="mcp", server_label="w", connector_id="connector_gmail", require_approval="never"),
    "custom": tool(type="custom", name="sql", format={"type": "grammar", "syntax": "lark", "definition": "start: /a/"}),
    "local shell": tool(type="local_shell"),
    "shell": tool(type="shell", environment={"type": "local"}),
    "apply patch": tool(type="apply_patch"),
    "tool search": tool(type="tool_search"),
    "namespace": tool(type="namespace", name="crm", description="d", tools=[{"type": "function", "name": "find"}]),
    "choice of a function": create(tools=[FUNCTION], tool_choice={"type": "function", "name": "get_weather"}),
    "choice in words": create(tools=[FUNCTION], tool_choice="required"),
    "choice of a hosted tool": create(tools=[{"type": "web_search"}], tool_choice={"type": "web_search_preview"}),
    "choice of an MCP server": create(tool_choice={"type": "mcp", "server_label": "wiki", "name": None}),
    "choice of several": create(
        tools=[FUNCTION],
        tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "get_weather"}]},
    ),
}

ITEMS: Final[dict[str, Call]] = {
    "tool call": item(type="function_call", call_id="c", name="f", arguments="{}", caller=DIRECT),
    "tool output": item(type="function_call_output", call_id="c", output="21"),
    "tool output of parts": item(type="function_call_output", call_id="c", output=[TEXT]),
    "custom tool call": item(type="custom_tool_call", call_id="c", name="sql", input="select 1"),
    "custom tool output": item(type="custom_tool_call_output", call_id="c", output="1"),
    "reasoning": item(
        type="reasoning", id="rs_1", summary=[{"type": "summary_text", "text": "t"}], encrypted_content="g"
    ),
    "reference": item(type="item_reference", id="msg_1"),
    "reference without type": item(id="msg_1"),
    "whole answer": item(
        type="message",
        id="msg_1",
        role="assistant",
        status="completed",
        content=[
            {
                "type": "output_text",
                "text": "x",
                "annotations": [{"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}],
            }
        ],
    ),
    "web search call": item(
        type="web_search_call", id="ws", status="completed", action={"type": "search", "query": "q", "queries": ["q"]}
    ),
    "file search call": item(type="file_search_call", id="fs", status="completed", queries=["q"], results=None),
    "computer call": item(
        type="computer_call",
        id="cu",
        call_id="c",
        status="completed",
        pending_safety_checks=[],
        action={"type": "click", "button": "left", "x": 1, "y": 2},
    ),
    "computer output": item(type="computer_call_output", call_id="c", output=SCREENSHOT),
    "code interpreter call": item(
        type="code_interpreter_call", id="ci", status="completed", code="1", container_id="cntr", outputs=None
    ),
    "image generation call": item(type="image_generation_call", id="ig", status="completed", result=None),
    "image generation call by id": item(type="image_generation_call", id="ig"),
    "shell call": item(type="shell_call", call_id="c", action={"commands": ["ls"], "timeout_ms": 1000}),
    "shell output": item(
        type="shell_call_output",
        call_id="c",
        output=[{"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
    ),
    "patch call": item(
        type="apply_patch_call", call_id="c", status="completed", operation={"type": "delete_file", "path": "a"}
    ),
    "patch output": item(type="apply_patch_call_output", call_id="c", status="failed", output="no"),
    "MCP tools": item(type="mcp_list_tools", id="m", server_label="w", tools=[{"name": "ask", "input_schema": {}}]),
    "MCP approval": item(type="mcp_approval_response", approval_request_id="a", approve=True),
    "MCP call": item(type="mcp_call", id="m", server_label="w", name="ask", arguments="{}", output="x", error=None),
    "compaction": item(type="compaction", encrypted_content="g"),
    "newer than the SDK": item(type="telepathy_call", thought={"deep": [1, None]}),
}


def every_call() -> dict[str, Any]:
    """All of them, by kind and name."""
    from support.sdk_calls import GENERAL  # noqa: PLC0415

    kinds = {"call": GENERAL, "content": CONTENT, "tool": TOOLS, "item": ITEMS}
    return {f"{kind}: {name}": call for kind, calls in kinds.items() for name, call in calls.items()}
