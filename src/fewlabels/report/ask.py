# ruff: noqa: E501  (style sheet and script)
"""The page on which a person labels pictures: one picture at a time, by keyboard, mouse or finger.

Up to nine classes have the keys 1 to 9. Of more, a class is found by typing a part of its name, and each one that was
used gets the next free key and keeps it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fewlabels.report.markup import Markup, joined, tag
from fewlabels.report.style import STYLE

KEYS = 9
"""Classes with a key."""


def policy(nonce: str) -> str:
    """What a browser lets the page do: run its own script, and speak to nobody but its server."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def page(state: Mapping[str, Any], nonce: str) -> str:
    """A whole HTML file.

    Args:
        state: JSON with `title`, `classes`, `questions` (each `name`, `predicted`, `confidence`, `given`, and `label`,
            the number of a class or null), `file` (of the answers) and `next` (the command that takes them).
        nonce: of the policy.
    """
    told = json.dumps(state).replace("<", "\\u003c")  # no end of the script stands in it
    head = joined(
        (
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("link", rel="icon", href="data:,"),  # else the browser asks the server for one
            tag("title", state["title"]),
            tag("style", Markup(STYLE + OWN)),
        )
    )
    body = (
        tag("h1", tag("span", id="done", aria_live="polite"), " · ", tag("bdi", state["title"])),
        tag("div", tag("img", id="picture", alt=""), class_="stage"),
        tag("p", tag("bdi", id="name"), class_="faint"),
        tag("p", id="guess"),
        tag("div", id="keys"),
        tag(
            "div",
            tag(
                "input", id="find", type="text", placeholder="f: find a class by a part of its name", autocomplete="off"
            ),
            tag("div", id="found"),
            id="finder",
        ),
        tag(
            "p",
            tag("button", tag("kbd", "u"), " undo", id="undo"),
            " ",
            tag("button", tag("kbd", "s"), " skip", id="skip"),
        ),
        tag("p", id="error", role="alert"),
        tag("p", id="end"),
        tag("footer", "Each answer is saved in ", tag("bdi", state["file"]), ". Enter takes the guess."),
        Markup(f'<script type="application/json" id="data">{told}</script>'),
        Markup(f'<script nonce="{nonce}">{SCRIPT}</script>'),
    )
    return f"<!DOCTYPE html>\n{tag('html', tag('head', head), tag('body', tag('main', *body)), lang='en')}\n"


OWN = """
main{max-width:48rem}
[hidden]{display:none!important}
.stage{display:flex;justify-content:center;background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.5rem}
.stage img{max-width:100%;height:min(55vh,80vw,32rem);width:100%;object-fit:contain}
.stage img.pixels{image-rendering:pixelated}
#name{display:inline-block;max-height:3em;overflow:hidden}
#keys,#found{display:flex;flex-wrap:wrap;gap:.4rem;margin:.5rem 0}
button,input{font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);border-radius:.4rem;padding:.45rem .8rem;max-width:100%}
button{cursor:pointer;overflow-wrap:anywhere;text-align:left}
button:hover,button.first{border-color:var(--a)}
input{width:100%}
kbd{font-family:ui-monospace,SFMono-Regular,Menlo,monospace;color:var(--a);font-weight:600}
#error{color:var(--bad);font-weight:600}
#error:empty,#end:empty,#guess:empty{display:none}
"""

SCRIPT = r"""
"use strict";
const {classes, questions, next} = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id), few = classes.length <= 9;
const past = [], skipped = new Set();
let now = -1, busy = false, keys = few ? classes.map((_, i) => i) : [], mark = 0;
if (!few) for (const q of questions) if (q.label !== null) pin(q.label);

function pin(label) { if (!keys.includes(label) && keys.length < 9) keys.push(label); }
function open(i) { return questions[i].label === null && !skipped.has(i); }
function following() {
  for (let i = 1; i <= questions.length; i++) { const n = (now + i) % questions.length; if (open(n)) return n; }
  return -1;
}
function button(label, key, act) {
  const made = document.createElement("button"), text = document.createElement("bdi");
  text.textContent = label;
  if (key) { const k = document.createElement("kbd"); k.textContent = key; made.append(k, " "); }
  made.append(text);
  made.onclick = () => { made.blur(); act(); };
  return made;
}
function matches() {
  const part = at("find").value.trim().toLowerCase();
  if (!part) return [];
  const all = classes.map((c, i) => [c.toLowerCase(), i]).filter(([c]) => c.includes(part));
  all.sort(([a, i], [b, j]) => (b === part) - (a === part) || b.startsWith(part) - a.startsWith(part) || i - j);
  return all.map(([, i]) => i);
}
function find() {
  const some = matches().slice(0, 12);
  mark = Math.max(0, Math.min(mark, some.length - 1));
  at("found").replaceChildren(...some.map((c, i) => {
    const made = button(classes[c], "", () => answer(c));
    if (i === mark) made.className = "first";
    return made;
  }));
}
function show() {
  const given = questions.filter(q => q.label !== null).length;
  at("done").textContent = `${given} of ${questions.length}` + (skipped.size ? `, ${skipped.size} skipped` : "");
  at("keys").replaceChildren(...keys.map((c, i) => button(classes[c], String(i + 1), () => answer(c))));
  at("finder").hidden = few || now < 0;
  at("keys").hidden = at("skip").hidden = now < 0;
  document.querySelector(".stage").hidden = now < 0;
  at("find").value = ""; mark = 0; find();
  if (now < 0) {
    at("name").textContent = at("guess").textContent = "";
    at("end").textContent = skipped.size ? "" : "Every picture has an answer. ";
    if (skipped.size) at("end").append(button(`show the ${skipped.size} skipped again`, "r", again), " ");
    const code = document.createElement("code");
    code.textContent = next;
    at("end").append("Next: ", code);
    return;
  }
  const q = questions[now], picture = at("picture");
  at("end").textContent = "";
  picture.onload = () => picture.classList.toggle("pixels", Math.max(picture.naturalWidth, picture.naturalHeight) <= 64);
  picture.onerror = () => { at("error").textContent = "This picture cannot be shown: skip it."; };
  picture.src = "picture/" + now;
  picture.alt = "picture " + (now + 1);
  at("name").textContent = q.name;
  const said = [];
  const apart = name => "\u2068" + name + "\u2069";  // whatever its direction of writing
  if (q.given) said.push("labeled " + apart(q.given));
  if (q.predicted) said.push("taken for " + apart(q.predicted) + (q.confidence ? ` (${Number(q.confidence).toFixed(2)})` : ""));
  at("guess").textContent = said.join(", ");
  const after = following();
  if (after >= 0) new Image().src = "picture/" + after;
}
async function save(number, label) {
  if (busy) return false;
  busy = true;
  try {
    const got = await fetch("answer", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({number, label})});
    const said = await got.json();
    if (!got.ok) throw new Error(said.error);
    questions[number].label = label;
    at("error").textContent = "";
    return true;
  } catch (error) {
    at("error").textContent = "Not saved: " + (error instanceof TypeError ? "fewlabels label has ended" : error.message);
    return false;
  } finally { busy = false; }
}
function go(number) { now = number; at("error").textContent = ""; show(); }
async function answer(label) {
  if (now < 0) return;
  const number = now, before = questions[number].label;
  if (!await save(number, label)) return;
  past.push([number, before]);
  skipped.delete(number);
  pin(label);
  go(following());
}
function skip() {
  if (now < 0 || busy) return;
  past.push([now, questions[now].label]);
  skipped.add(now);
  go(following());
}
async function undo() {
  const last = past[past.length - 1];
  if (!last) return;
  const [number, before] = last;
  if (questions[number].label !== before && !await save(number, before)) return;
  past.pop();
  skipped.delete(number);
  go(number);
}
function again() { skipped.clear(); go(following()); }
at("undo").onclick = () => { at("undo").blur(); undo(); };
at("skip").onclick = () => { at("skip").blur(); skip(); };
at("find").oninput = () => { mark = 0; find(); };
document.onkeydown = event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const key = event.key;
  if (event.target === at("find")) {
    const some = matches();
    if (key === "Escape") { at("find").value = ""; find(); at("find").blur(); }
    else if (key === "ArrowDown" || key === "ArrowUp") { mark += key === "ArrowDown" ? 1 : -1; find(); event.preventDefault(); }
    else if (key === "Enter" && some.length) { at("find").blur(); answer(some[mark]); event.preventDefault(); }
    return;
  }
  if (event.target instanceof HTMLButtonElement) return;
  if (/^[1-9]$/.test(key) && keys[key - 1] !== undefined) answer(keys[key - 1]);
  else if (key === "u") undo();
  else if (key === "s") skip();
  else if (key === "r" && now < 0) again();
  else if (key === "f" && !few && now >= 0) { at("find").focus(); event.preventDefault(); }
  else if (key === "Enter" && now >= 0) { const c = classes.indexOf(questions[now].predicted); if (c >= 0) answer(c); }
};
go(following());
"""
