"""A folder of documents of every kind, and one of small Markdown files that are all different."""

import json
from pathlib import Path

ANIMALS = (
    "badger",
    "heron",
    "otter",
    "lynx",
    "viper",
    "magpie",
    "salmon",
    "beetle",
    "marten",
    "bison",
    "raven",
    "newt",
)
PLACES = ("river", "meadow", "cellar", "ridge", "harbor", "orchard")
DEEDS = ("builds a nest", "crosses the ice", "steals the bread", "sings before dawn", "sheds its skin", "hunts alone")


def write_every_kind(root: Path) -> Path:
    """One readable file of every kind, with links between them."""
    for folder in ("guide", "code"):
        (root / folder).mkdir(parents=True)
    files = {
        "README.md": """---
title: Frobnicator
---
# Frobnicator

A tool that frobs. See the [way through a firewall](guide/proxy.md#set-up-a-proxy) for closed networks.

## Usage {#using .wide}

Run `frob --all` in a folder. It prints one line for each file that it has changed.
""",
        "guide/proxy.md": """# Proxies

## Set up a proxy

Name the proxy in HTTPS_PROXY before the first call. Certificates are read from the folder certs.

| key | meaning |
|---|---|
| a | first |
""",
        "guide/index.rst": """.. _the-guide:

Guide
=====

The guide explains each of the commands in the order in which people need them.

.. toctree::

   proxy

Errors
------

When a call fails, :ref:`the whole guide <the-guide>` has a table of codes, and :func:`~frob.run` raises ``FrobError``.

.. versionadded:: 2.1
   Codes stay the same between releases.

.. include:: /etc/passwd
""",
        "page.html": """<html><head><title>Site</title></head><body><nav>menu</nav><main>
<h1>Release notes<a class="headerlink" href="#x">¶</a></h1><p>All changes are listed here, with dates.</p>
<section id="v2"><span id="two"></span><h2>Version two</h2><ul><li><p>Faster frobbing of large files.</p></li>
<li>See <a href="guide/">the user guide pages</a>.</li></ul><pre>code   here
 two</pre></section></main><script>var x</script></body></html>""",
        "notes.txt": """Meeting notes

We met on Monday and talked about the frob. Nobody was against it.

Decisions
---------
The frob stays as it is until spring. Then we look at its colors.
""",
        "code/add.py": '''def add(a):
    """Add one to a number and log it."""
    b = a + 1
    print(b)
    return b
''',
        "code/send.js": """// Copyright
import x from "y";

// Sends the form to the server and shows the answer.
function send(form) {
  const a = 1;
  post(form);
  return a;
}
""",
    }
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")
    cells = [
        {"cell_type": "markdown", "source": ["# Tutorial\n", "Load the data first, then plot it."]},
        {"cell_type": "code", "source": "plot(data)", "outputs": [{"text": "hidden"}]},
    ]
    (root / "tutorial.ipynb").write_text(json.dumps({"cells": cells, "nbformat": 4}), encoding="utf-8")
    (root / "paper.pdf").write_bytes(make_pdf(["Frobs were first described in 1974.", "They are rare today."]))
    return root


def write_animals(root: Path, files: int = 12) -> Path:
    """`files` Markdown files of three sections each, no two alike."""
    root.mkdir(parents=True, exist_ok=True)
    for number, animal in enumerate(ANIMALS[:files]):
        lines = [f"# The {animal}", ""]
        for turn in range(3):
            place, deed = PLACES[(number + turn) % 6], DEEDS[(number + 2 * turn) % 6]
            lines += [
                f"## The {animal} of the {place}",
                "",
                f"Every year the {animal} {deed} near the {place}, as travelers of the {number + 3}th road report.",
                f"People of the {place} keep a calendar in which day {number * 7 + turn} belongs to the {animal}.",
                "",
            ]
        (root / f"{animal}.md").write_text("\n".join(lines), encoding="utf-8")
    return root


def make_pdf(pages: list[str]) -> bytes:
    """A PDF with one line of text on each page; an empty line leaves the page blank."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode())
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for number, text in enumerate(pages):
        content = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R "
            f"/Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream".encode())
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    end = (
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\n"
    )
    return out + f"{end}startxref\n{len(out)}\n%%EOF\n".encode()
