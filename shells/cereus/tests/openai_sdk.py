#!/usr/bin/env python3
"""The official openai package, unmodified, against a running network.

Starts a coordinator and a provider of its own, or uses one that runs already:

    CEREUS_BIN=target/debug/cereus CEREUS_MODEL=engine/models/tiny python3 openai_sdk.py
    python3 openai_sdk.py --base-url http://127.0.0.1:8080/v1 --key sk-cereus-... --model tiny
"""

import argparse
import pathlib
import sys
import tempfile
import time
import typing

import openai
import pydantic
from openai import OpenAI

import network
from network import Failure

MODEL = "tiny"


def check(holds, text):
    if not holds:
        raise Failure(text)


def client(base_url, key):
    return OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=120)


def ask(prompt="What is 2 + 3?"):
    return [{"role": "user", "content": prompt}]


def plain_chat(base_url, key, model):
    answer = client(base_url, key).chat.completions.create(
        model=model, messages=ask(), max_tokens=32
    )
    check(answer.object == "chat.completion", "not a chat.completion")
    check(answer.model == model, "the model is not echoed")
    choice = answer.choices[0]
    check(choice.message.role == "assistant", "no role")
    check(choice.message.content, "no content")
    check(choice.finish_reason in ("stop", "length"), f"finish reason {choice.finish_reason}")
    usage = answer.usage
    check(usage.prompt_tokens > 0 and usage.completion_tokens > 0, "no usage")
    check(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, "a wrong total")
    check(answer._request_id, "no x-request-id")
    return choice.message.content


def streaming_chat(base_url, key, model):
    stream = client(base_url, key).chat.completions.create(
        model=model, messages=ask(), max_tokens=32, stream=True,
        stream_options={"include_usage": True},
    )
    texts, roles, finishes, usages = [], [], [], []
    for chunk in stream:
        check(chunk.object == "chat.completion.chunk", "not a chunk")
        if chunk.usage:
            check(chunk.choices == [], "usage on a chunk with choices")
            usages.append(chunk.usage)
        for choice in chunk.choices:
            texts.append(choice.delta.content or "")
            roles += [choice.delta.role] if choice.delta.role else []
            finishes += [choice.finish_reason] if choice.finish_reason else []
    check("".join(texts), "no content")
    check(roles == ["assistant"], f"roles {roles}: exactly one is due")
    check(len(finishes) == 1, f"finish reasons {finishes}: exactly one is due")
    check(len(usages) == 1 and usages[0].completion_tokens > 0, "exactly one usage chunk is due")
    return "".join(texts)


def helper_stream(base_url, key, model):
    """The package's own accumulator, which is strict about chunks."""
    with client(base_url, key).chat.completions.stream(
        model=model, messages=ask(), max_tokens=32
    ) as stream:
        for _ in stream:
            pass
        message = stream.get_final_completion().choices[0].message
    check(message.role == "assistant" and message.content, "the accumulated message is empty")


class Weather(pydantic.BaseModel):
    """A form that leaves nothing to run on for ever."""

    sunny: bool
    wind: typing.Literal["none", "light", "strong"]


def structured_chat(base_url, key, model):
    """The package makes the schema, and reads the answer into the class or fails."""
    answer = client(base_url, key).chat.completions.parse(
        model=model, messages=ask("How is the weather?"), max_tokens=200, response_format=Weather
    )
    weather = answer.choices[0].message.parsed
    check(isinstance(weather, Weather), f"no answer of the form: {answer.choices[0]}")
    return weather


def demanded_call(base_url, key, model):
    tools = [openai.pydantic_function_tool(Weather, name="report")]
    choice = client(base_url, key).chat.completions.parse(
        model=model, messages=ask("Report the weather."), max_tokens=400, tools=tools,
        tool_choice="required", parallel_tool_calls=False,
    ).choices[0]
    check(choice.finish_reason == "tool_calls", f"finish reason {choice.finish_reason}")
    calls = choice.message.tool_calls
    check(len(calls) == 1 and calls[0].function.name == "report", f"calls {calls}")
    check(isinstance(calls[0].function.parsed_arguments, Weather), f"arguments {calls}")
    return calls[0].function.parsed_arguments


def unlikely_tokens(base_url, key, model):
    """At such a temperature tokens are drawn that are not among the likeliest twenty."""
    seen = 0
    for seed in range(6):
        answer = client(base_url, key).chat.completions.create(
            model=model, messages=ask(), max_tokens=40, temperature=2, seed=seed,
            logprobs=True, top_logprobs=20,
        )
        for token in answer.choices[0].logprobs.content:
            likely = [likely.bytes for likely in token.top_logprobs]
            check(token.bytes in likely, "the token that was drawn is not named")
            check(len(likely) in (20, 21), f"{len(likely)} tokens")
            seen += len(likely) == 21
    check(seen > 0, "no unlikely token was drawn; choose other seeds")


def models(base_url, key, model):
    listed = [entry.id for entry in client(base_url, key).models.list()]
    check(model in listed, f"{model} is not listed")
    check(client(base_url, key).models.retrieve(model).id == model, "it cannot be retrieved")


def error_of(call):
    try:
        call()
    except openai.APIStatusError as error:
        return error
    raise Failure("no error came")


def errors(base_url, key, model):
    def create(key=key, **changes):
        arguments = {"model": model, "messages": ask(), "max_tokens": 8} | changes
        return lambda: client(base_url, key).chat.completions.create(**arguments)

    wrong_key = error_of(create(key="sk-cereus-wrong"))
    check(isinstance(wrong_key, openai.AuthenticationError), f"a bad key gave {wrong_key!r}")
    check(wrong_key.code == "invalid_api_key", f"code {wrong_key.code}")
    unknown = error_of(create(model="no-such-model"))
    check(isinstance(unknown, openai.NotFoundError), f"an unknown model gave {unknown!r}")
    check((unknown.code, unknown.param) == ("model_not_found", "model"), "a wrong code or param")
    check(unknown.request_id, "an error without x-request-id")
    for changes in ({"messages": []}, {"n": 2}, {"max_tokens": -2}):
        bad = error_of(create(**changes))
        check(isinstance(bad, openai.BadRequestError), f"{changes} gave {bad!r}")
        check(bad.param, f"{changes}: no param")
    unbounded = create(max_tokens=-1)()
    check(unbounded.choices[0].message.content, "max_tokens -1 means no bound, and no answer came")


def empty_account(base_url, data):
    """402 has no class of its own in the package."""
    key = network.make_key(data, "poor")
    broke = error_of(
        lambda: client(base_url, key).chat.completions.create(
            model=MODEL, messages=ask(), max_tokens=8
        )
    )
    check(broke.status_code == 402, f"an empty account gave {broke!r}")
    check(broke.code == "insufficient_quota", f"code {broke.code}")


def full_fleet(folder):
    """One machine with one place, no queue: whoever comes second hears 429 and when to return."""
    data = folder / "full"
    key = network.make_key(data, "full", "1")
    coordinator, address = network.coordinator(
        folder, data, [f"{MODEL}:50000:200000"], args=["--queue-depth", "0"]
    )
    provider = network.provider(
        folder, address, folder / "full-machine", MODEL,
        args=["--concurrency", "1", "--echo-pieces", "100000", "--echo-pause-ms", "20"],
    )
    network.await_provider(provider, address)
    base_url = address + "/v1"
    stream = first_stream(base_url, key)
    next(iter(stream))
    refused = error_of(
        lambda: client(base_url, key).chat.completions.create(
            model=MODEL, messages=ask(), max_tokens=8
        )
    )
    check(isinstance(refused, openai.RateLimitError), f"a full fleet gave {refused!r}")
    seconds = refused.response.headers.get("retry-after")
    check(seconds and 1 <= int(seconds) <= 60, f"Retry-After is {seconds}")
    stream.close()
    provider.end()
    coordinator.end()


def first_stream(base_url, key):
    """The machine's first report may still be on its way: then the refusal says to come again."""
    until = time.monotonic() + network.WAIT_S
    while True:
        try:
            return client(base_url, key).chat.completions.create(
                model=MODEL, messages=ask(), max_tokens=2_000, stream=True
            )
        except openai.RateLimitError:
            check(time.monotonic() < until, "the machine never became free")
            time.sleep(0.1)


CHECKS = [
    plain_chat, streaming_chat, helper_stream, structured_chat, demanded_call, unlikely_tokens,
    models, errors,
]


def run(base_url, key, model):
    for one in CHECKS:
        answer = one(base_url, key, model)
        said = f": {answer!r}" if answer else ""
        print(f"ok  {one.__name__}{said}", flush=True)


def own_network(folder):
    data = folder / "data"
    key = network.make_key(data, "sdk", "1")
    coordinator, address = network.coordinator(folder, data, [f"{MODEL}:50000:200000"])
    provider = network.provider(
        folder, address, folder / "machine", MODEL, model=network.model_folder()
    )
    network.await_provider(provider, address)
    run(address + "/v1", key, MODEL)
    empty_account(address + "/v1", data)
    print("ok  empty_account", flush=True)
    provider.end()
    coordinator.end()
    full_fleet(folder)
    print("ok  full_fleet", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base-url", help="a running coordinator, with /v1")
    parser.add_argument("--key")
    parser.add_argument("--model", default=MODEL)
    args = parser.parse_args()
    print(f"openai {openai.__version__}", flush=True)
    try:
        if args.base_url:
            run(args.base_url, args.key, args.model)
        else:
            with tempfile.TemporaryDirectory(prefix="cereus-sdk-") as folder:
                own_network(pathlib.Path(folder))
    except Failure as failure:
        sys.exit(f"openai_sdk: {failure}")


if __name__ == "__main__":
    main()
