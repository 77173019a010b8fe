"""What each family of OCR models is asked, and the lines that its answers become."""

from __future__ import annotations

import pytest

from periscope.vision.readers.model_families import ANY_MODEL, FAMILIES, family_of

BOX = "<|det|>[[12, 5, 300, 40]]<|/det|>"
INVOICE = "INVOICE 7\nScrews  12.50\nTotal  17.40 & tax"
HTML = "<table><tr><td>Screws</td><td>12.50</td></tr><tr><th>Total</th> <td>17.40 &amp; tax</td></tr></table>"
#: Family -> answers of its shape, each for a picture in which `INVOICE` stands.
ANSWERS = {
    "DeepSeek-OCR": (
        f"INVOICE 7\n{HTML}",
        f"<|ref|>title<|/ref|>{BOX}\nINVOICE 7\n<|ref|>table<|/ref|>{BOX}\n{HTML}",
        "\n".join(f"<|ref|>{line}<|/ref|>{BOX}" for line in INVOICE.splitlines()),
    ),
    "GLM-OCR": (f"```markdown\nINVOICE 7\n{HTML}\n```", INVOICE),
    "dots.ocr": (
        INVOICE,
        (
            '[{"bbox": [9, 9, 99, 20], "category": "Title", "text": "INVOICE 7"}, {"bbox": [0, 0, 5, 5], "category": '
            f'"Picture"}}, {{"bbox": [9, 30, 99, 60], "category": "Table", "text": "{HTML}"}}]'
        ),
    ),
    "PaddleOCR-VL": (
        INVOICE,
        "INVOICE 7\n<fcel>Screws<fcel>12.50<nl>\n<fcel>Total<fcel>17.40 & tax<nl>",
        "INVOICE 7<|LOC_12|><|LOC_345|>\nScrews  12.50<|LOC_1|>\nTotal  17.40 & tax",
    ),
    "HunyuanOCR": (INVOICE, "INVOICE 7(12,5),(300,40)Screws  12.50(1,2),(3,4)\nTotal  17.40 & tax(1,2),(3,4)"),
    "Falcon-OCR": (INVOICE, f"INVOICE 7\n{HTML}"),
    "any model": (INVOICE, f"```\n{INVOICE}\n```", f"```text\n{INVOICE}"),
}


@pytest.mark.parametrize("family", [*FAMILIES, ANY_MODEL], ids=lambda family: family.name)
def test_answers_become_lines(family):
    """Fences, tables, boxes and kinds of regions go; every word stays, cells of a row on one line."""
    assert [family.text_of(answer) for answer in ANSWERS[family.name]] == [INVOICE] * len(ANSWERS[family.name])


@pytest.mark.parametrize("family", [*FAMILIES, ANY_MODEL], ids=lambda family: family.name)
def test_code_stays_as_it_is(family):
    """Indentation, brackets, a fence in the middle, JSON that is no layout."""
    for code in ('def f(x):\n    return {"a": [x < 3, (1, 2)]}', "# Use\n```sh\nls\n```\nand see", '{"total": 17.4}'):
        assert family.text_of(code) == code


def test_a_screenshot_of_html_is_not_cleaned_for_other_models():
    """Only families that write tables in HTML have them taken out."""
    assert ANY_MODEL.text_of(HTML) == HTML


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (("mlx-community/DeepSeek-OCR-4bit",), "DeepSeek-OCR"),
        (("mlx-community/DeepSeek-OCR-2-8bit",), "DeepSeek-OCR"),
        (("/models/reader", "glm_ocr"), "GLM-OCR"),
        (("mlx-community/GLM-OCR-bf16",), "GLM-OCR"),
        (("mlx-community/dots.ocr-bf16",), "dots.ocr"),
        (("/models/reader", "paddleocr_vl"), "PaddleOCR-VL"),
        (("tencent/HunyuanOCR",), "HunyuanOCR"),
        (("mlx-community/Falcon-OCR-bf16",), "Falcon-OCR"),
        (("mlx-community/Qwen3-VL-2B-Instruct-4bit", "qwen3_vl"), "any model"),
    ],
)
def test_a_model_is_known_by_its_repository_or_its_type(names, family):
    """Whichever of the two says it."""
    assert family_of(*names).name == family
