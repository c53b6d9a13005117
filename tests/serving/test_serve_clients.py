"""Well-known clients of OpenAI's protocol, unmodified: only their base URL is changed.

Each runs in a process of its own, with the Python named by $OUTTHINK_CLIENTS_PYTHON (this one if it is
not set), or with Node in the folder $OUTTHINK_CLIENTS_NODE, where `npm install openai` has been run. A
client that is not installed there is skipped. `benchmarks/serve_clients.py` installs them all, each
where it disturbs no other, and runs these tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from support.chat_server import DONE, ChatServer, Reply, Seen, chat, chunk, stream, token, usage, whole
from support.proxy_server import ProxyServer

PYTHON = os.environ.get("OUTTHINK_CLIENTS_PYTHON", sys.executable)
TOOL = {"name": "add", "arguments": '{"a": 1}'}

LITELLM = """
import litellm
ask = dict(model="openai/" + MODEL, api_base=URL, api_key="any", messages=[{"role": "user", "content": "Hello"}])
reply = litellm.completion(**ask)
pieces = [part.choices[0].delta.content or "" for part in litellm.completion(stream=True, **ask)]
said = {"text": reply.choices[0].message.content, "tokens": reply.usage.total_tokens, "streamed": "".join(pieces)}
"""
LANGCHAIN = """
from langchain_openai import ChatOpenAI
model = ChatOpenAI(model=MODEL, base_url=URL, api_key="any")
reply = model.invoke("Hello")
pieces = [part.content for part in model.stream("Hello")]
said = {"text": reply.content, "tokens": reply.usage_metadata["total_tokens"], "streamed": "".join(pieces)}
"""
LITELLM_TOOLS = """
import json, litellm
add = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
reply = litellm.completion(model="openai/" + MODEL, api_base=URL, api_key="any",
                           messages=[{"role": "user", "content": "Hello"}],
                           tools=[{"type": "function", "function": add}])
said = {"calls": [[call.function.name, json.loads(call.function.arguments)]
                  for call in reply.choices[0].message.tool_calls]}
"""
LANGCHAIN_TOOLS = """
from langchain_openai import ChatOpenAI
def add(a: int) -> int:
    '''Add.'''
    return a
reply = ChatOpenAI(model=MODEL, base_url=URL, api_key="any").bind_tools([add]).invoke("Hello")
said = {"calls": [[call["name"], call["args"]] for call in reply.tool_calls]}
"""
LANGCHAIN_STRUCTURED = """
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
class Count(BaseModel):
    n: int
model = ChatOpenAI(model=MODEL, base_url=URL, api_key="any")
said = {"n": model.with_structured_output(Count, method="json_schema").invoke("Hello").n}
"""
LITELLM_ERRORS = """
import litellm
said = {}
for name in ("gpt-none", "outthink/nonsense"):
    try:
        litellm.completion(model="openai/" + name, api_base=URL, api_key="any", max_retries=0,
                           messages=[{"role": "user", "content": "Hello"}])
    except Exception as error:
        said[name] = type(error).__name__
"""
OPENAI = """
from openai import OpenAI
client = OpenAI(base_url=URL, api_key="any")
ask = dict(model=MODEL, messages=[{"role": "user", "content": "Hello"}])
reply = client.chat.completions.create(n=2, logprobs=True, **ask)
first = client.chat.completions.create(**ask).choices[0]
pieces = [part.choices[0].delta.content or "" for part in client.chat.completions.create(stream=True, **ask)]
said = {"text": first.message.content, "tokens": reply.usage.total_tokens, "streamed": "".join(pieces),
        "choices": len(reply.choices), "logprobs": len(reply.choices[0].logprobs.content)}
"""
LM_EVAL = """
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalChatCompletion
model = LocalChatCompletion(base_url=URL + "/chat/completions", model=MODEL, num_concurrent=1, tokenizer_backend=None)
chats = [Instance("generate_until", {}, (model.apply_chat_template([{"role": "user", "content": "Hello"}]), {}), 0)]
said = {"text": model.generate_until(chats)[0]}
"""
NODE = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: URL, apiKey: "any" });
const ask = { model: MODEL, messages: [{ role: "user", content: "Hello" }] };
const reply = await client.chat.completions.create(ask);
let streamed = "";
for await (const part of await client.chat.completions.create({ ...ask, stream: true }))
  streamed += part.choices[0]?.delta?.content ?? "";
const add = { type: "function", function: { name: "add", parameters: { type: "object", properties: {} } } };
const called = await client.chat.completions.stream({ ...ask, tools: [add] }).finalChatCompletion();
const calls = called.choices[0].message.tool_calls.map(({ function: one }) => [one.name, JSON.parse(one.arguments)]);
const refused = await client.chat.completions.create({ ...ask, model: "gpt-none" }).catch((error) => error);
const { data, response } = await client.chat.completions.create(ask).withResponse();
const error = [refused instanceof OpenAI.NotFoundError, refused.code, refused.param];
const receipt = response.headers.get("x-outthink-receipt") ?? "";
const { message } = data.choices[0], tokens = reply.usage.total_tokens;
const said = { text: message.content, tokens, streamed, calls, error, receipt };
console.log(JSON.stringify(said));
"""


def answer(seen: Seen) -> Reply:
    """A tool call where tools are offered, else an answer in words."""
    body = seen.body
    if "response_format" in body:
        return chat(['{"n": 4}']) if body.get("stream") is True else completion('{"n": 4}')
    if body.get("tools"):
        call = {"index": 0, "id": "call_1", "type": "function", "function": TOOL}
        first = chunk(delta={"role": "assistant", "tool_calls": [call]})
        return stream(first, chunk(finish="tool_calls"), usage(5, 2), DONE)
    if body.get("stream") is True:
        if body.get("logprobs"):
            pieces = [chunk(text, logprobs=[token(text)]) for text in ("The answer is ", "7.")]
            return stream(*pieces, chunk(finish="stop"), usage(5, 2), DONE)
        return chat(["The answer is ", "7."])
    return completion("The answer is 7.")


def completion(text: str) -> Reply:
    """A reply that is not streamed."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    counts = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return whole({"id": "c", "object": "chat.completion", "model": "toy", "choices": [choice], "usage": counts})


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyServer]:
    with ChatServer(answer) as backend, ProxyServer(backend.url) as running:
        yield running


def python(script: str, package: str, url: str, model: str) -> Any:
    """What a script has found out, run where the package is installed."""
    try:
        known = subprocess.run([PYTHON, "-c", f"import {package}"], capture_output=True, timeout=60, check=False)
    except OSError as error:
        pytest.skip(f"{PYTHON}: {error}")
    if known.returncode:
        pytest.skip(f"{package} is not installed for {PYTHON}")
    code = f"URL, MODEL = {url!r}, {model!r}\n{script}\nimport json\nprint(json.dumps(said))"
    return _ran([PYTHON, "-c", code])


def _ran(command: list[str], folder: str | None = None) -> Any:
    alone = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_API_KEY": "any"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=folder, env=alone, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("model", ["outthink/single", "outthink/self-consistency@3"])
@pytest.mark.parametrize(
    ("script", "package"),
    [(LITELLM, "litellm"), (LANGCHAIN, "langchain_openai"), (OPENAI, "openai")],
    ids=["litellm", "langchain", "openai"],
)
def test_whole_and_streamed(proxy: ProxyServer, script: str, package: str, model: str) -> None:
    said = python(script, package, proxy.url, model)
    assert said["text"] == said["streamed"] == "The answer is 7."
    assert said["tokens"] >= 7
    if package == "openai":
        assert said["choices"] == 2
        assert said["logprobs"] == 2


@pytest.mark.parametrize(
    ("script", "package"),
    [(LITELLM_TOOLS, "litellm"), (LANGCHAIN_TOOLS, "langchain_openai")],
    ids=["litellm", "langchain"],
)
def test_tools(proxy: ProxyServer, script: str, package: str) -> None:
    said = python(script, package, proxy.url, "outthink/self-consistency@3")
    assert said["calls"] == [["add", {"a": 1}]]


@pytest.mark.parametrize("model", ["toy", "outthink/self-consistency@3"], ids=["langchain-toy", "langchain-strategy"])
def test_structured_output(proxy: ProxyServer, model: str) -> None:
    assert python(LANGCHAIN_STRUCTURED, "langchain_openai", proxy.url, model) == {"n": 4}


def test_errors_litellm(proxy: ProxyServer) -> None:
    said = python(LITELLM_ERRORS, "litellm", proxy.url, "")
    assert said == {"gpt-none": "NotFoundError", "outthink/nonsense": "BadRequestError"}


def test_lm_eval(proxy: ProxyServer) -> None:
    assert python(LM_EVAL, "lm_eval", proxy.url, "outthink/self-consistency@3")["text"] == "The answer is 7."


@pytest.mark.parametrize("model", ["toy", "outthink/self-consistency@3"])
def test_node(proxy: ProxyServer, model: str) -> None:
    folder = os.environ.get("OUTTHINK_CLIENTS_NODE")
    if folder is None or shutil.which("node") is None:
        pytest.skip("needs node, and $OUTTHINK_CLIENTS_NODE with the openai package")
    code = f"const URL = {json.dumps(proxy.url)}, MODEL = {json.dumps(model)};\n"
    imports, _, rest = NODE.strip().partition("\n")
    said = _ran(["node", "--input-type=module", "-e", f"{imports}\n{code}{rest}"], folder)
    assert said["text"] == said["streamed"] == "The answer is 7."
    assert said["tokens"] >= 7
    assert said["calls"] == [["add", {"a": 1}]]
    assert said["error"] == [True, "model_not_found", "model"]
    assert said["receipt"]
