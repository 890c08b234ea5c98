"""Checks of IFEval's instructions by lm-evaluation-harness's checker, on answers of ours.

Needs lm_eval 0.4.13 with langdetect, immutabledict and nltk, and NLTK's data `punkt_tab`. Writes rows.jsonl, which are rows as
in google/IFEval with an answer, and what the checker says of each instruction.
"""

import json
import pathlib
import random

from lm_eval.tasks.ifeval import utils

R = random.Random(16)
HERE = pathlib.Path(__file__).parent

SENTENCES = [
    "The boat left at 6.30 p.m. from the old pier.", "Dr. Vance met Mrs. Oda in the U.S. last March.",
    "Was it cold? Yes!", "\"Stop,\" she said. \"We are late.\"", "It cost $3.50 (about 3 euros).",
    "No... not again.", "J. K. Moss wrote it.", "See e.g. the map, or i.e. the plan.", "He asked why? Nobody knew!!",
    "They grew apples, pears, etc. in the garden.", "NASA and the BBC AGREED ON IT.", "I CAN'T GO, and you WON'T.",
    "the end", "It's a well-known, often-told story: truth hurts.", "Mr. and Mrs. Eel live on St. John St. in Bath.",
    "She arrived on Jan. 5. It snowed.", "Version 2.0 is out. Version 2.1 is next.", "Wait -- what is that?",
    "«Oui.» He nodded. ‘Fine.’ “Good.” Done.", "A.B. Carr won 3-2. The crowd (all 900!) cheered.",
    "Plan B. The rest is easy.", "It rained… and then it stopped.", "We sell tea & coffee @ home #1.", "Über den Wolken. Ça va?",
    "1. Mix it. 2. Bake it. 3. Eat it.", "My answer is maybe.", "I think my answer is no. Or not.", "P.S. Call me.",
    "P.P.S. I mean it.", "p. s. lower", "Section 1 begins. Section 2 follows.", "SECTION 3\nend", "<<A title>>", "<< >> none <<x>",
    "{\"a\": [1, 2], \"b\": null}", "```json\n{\"a\": 1}\n```", "[name] lives at [address] in [ ] [multi\nline].",
    "* one\n* two\n- three\n** bold **\n*bold*", "  - a\n\n* b\n*c", "This is *light* and **heavy** and ** ** and *** x ***.",
    "******", "First.\n******\nSecond.", "Same\n******\nSame", "a\n***\nb\n***\nc", "***\na\n***\n\n***\nb", "\"All of this is quoted.\"",
    "“curly”", "any other questions?", "Any other questions?\"", "Is there anything else I can help with?", "Write a poem about eels. Eels are long.",
    "write a POEM about eels.", "WE ARE HERE. 'TWAS FUN.", "GONNA BE R&D, OK? (YES) [NO] U.S.A.", "all small letters, no capitals here.",
    "'Quoted' first word\n\nSecond paragraph here\n\nThird, the last.", "Alpha beta\n\n\n\nGamma delta", "Gov. Hart and Gen. Pike met at noon. They talked.",
    "Prof. Lin, Ph.D. of Bath Univ. spoke. Students listened.", "What?! No way. \"Really?\" Yes.", "He works at Acme Inc. The office is big.", "He works at Acme Inc. in town.",
    "The U.N. met. The U.K. Parliament voted. It is 5 a.m. in Rome.", "eels eels EELS eel's", "a_b c3 _ 4,5 x-y", "Line one\nLine two\nLine three.\nEnd",
]


def instruction():
    relation = R.choice(["less than", "at least"])
    n = R.randint(1, 8)
    return R.choice([
        ("keywords:existence", dict(keywords=R.sample(["eels", "boat", "the", "answer", "plan"], 2))),
        ("keywords:frequency", dict(keyword=R.choice(["eel", "the", "a", "is"]), frequency=R.randint(1, 3), relation=relation)),
        ("keywords:forbidden_words", dict(forbidden_words=R.sample(["eel", "eels", "boat", "the", "title"], 2))),
        ("keywords:letter_frequency", dict(letter=R.choice("etqzA"), let_frequency=n, let_relation=relation)),
        ("length_constraints:number_sentences", dict(num_sentences=n, relation=relation)),
        ("length_constraints:number_sentences", dict(num_sentences=R.randint(1, 4), relation=relation)),
        ("length_constraints:number_paragraphs", dict(num_paragraphs=R.randint(1, 3))),
        ("length_constraints:number_words", dict(num_words=R.randint(3, 30), relation=relation)),
        ("length_constraints:nth_paragraph_first_word", dict(num_paragraphs=R.randint(1, 3), nth_paragraph=1, first_word=R.choice(["quoted", "Alpha", "the", "first", "wait"]))),
        ("length_constraints:nth_paragraph_first_word", dict(num_paragraphs=3, nth_paragraph=R.randint(1, 3), first_word=R.choice(["second", "third", "gamma"]))),
        ("detectable_content:number_placeholders", dict(num_placeholders=R.randint(1, 3))),
        ("detectable_content:postscript", dict(postscript_marker=R.choice(["P.S.", "P.P.S"]))),
        ("detectable_format:number_bullet_lists", dict(num_bullets=R.randint(1, 4))),
        ("detectable_format:constrained_response", {}),
        ("detectable_format:number_highlighted_sections", dict(num_highlights=R.randint(1, 3))),
        ("detectable_format:multiple_sections", dict(section_spliter=R.choice(["Section", "SECTION", "Day"]), num_sections=R.randint(1, 2))),
        ("detectable_format:json_format", {}),
        ("detectable_format:title", {}),
        ("combination:two_responses", {}),
        ("combination:repeat_prompt", dict(prompt_to_repeat="Write a poem about eels.")),
        ("startend:end_checker", dict(end_phrase=R.choice(["Any other questions?", "Is there anything else I can help with?", "end"]))),
        ("startend:quotation", {}),
        ("change_case:capital_word_frequency", dict(capital_frequency=R.randint(1, 6), capital_relation=relation)),
        ("punctuation:no_comma", {}),
    ])


# Texts that follow an instruction, of which some answers are made.
FOLLOWING = {
    "combination:repeat_prompt": ["Write a poem about eels. Eels are long.", " write a POEM about eels.\nLong ones."],
    "combination:two_responses": ["First.\n******\nSecond.", "******\nOne\n******\nTwo ******"],
    "detectable_content:number_placeholders": ["[name], [address] and [day]", "[]\n[a] [b] [c"],
    "detectable_content:postscript": ["Hello.\nP.S. Call me.", "Hello. p.p.s all", "P. P. S", "p.s. lower"],
    "detectable_format:constrained_response": ["My answer is yes.", "Well: My answer is no."],
    "detectable_format:json_format": ["{\"a\": 1}", "```json\n[1, 2]\n```", "```\n3\n```", "\"text\"", "{a: 1}"],
    "detectable_format:multiple_sections": ["Section 1\na\nSection 2\nb", "SECTION 1 a SECTION 2", "Day 1 Day2 Day x"],
    "detectable_format:number_bullet_lists": ["* one\n* two", "- a\n- b\n* c", "Intro\n * a\n\n- b\n**c**", "*a"],
    "detectable_format:number_highlighted_sections": ["*a* and **b**", "***c*** *d*\n**e**", "** ** *f*"],
    "detectable_format:title": ["<<Eels>>\nText", "<<<x>>> y", "a << b >> c >>"],
    "keywords:existence": ["The boat has eels, and the answer is a plan."],
    "length_constraints:nth_paragraph_first_word": [
        "'Quoted, first\n\nSecond one\n\nThird: the last", "Alpha\n\nbeta", "The one", "\"First\" two\n\nsecond.\n\nGamma third",
        "Wait\n\n\n\nSecond\n\nGamma", "First\n\nGamma's\n\nThird!"],
    "length_constraints:number_paragraphs": ["a\n***\nb", "***\na\n***\nb\n***\nc\n***", "a *** b", "a\n***\n***\nb"],
    "startend:end_checker": ["Bye. Any other questions?", "Is there anything else I can help with?\"  ", "This is the END"],
    "startend:quotation": ["\"All of it.\"", " \"a\" and \"b\" ", "\""],
}


def answer(names):
    following = [text for name in names for text in FOLLOWING.get(name, [])]
    if following and R.random() < 0.6:
        return R.choice(["{}", "Sure:\n{}", "{}\nDone.", "**{}**"]).format(R.choice(following))
    parts = R.sample(SENTENCES, R.choice([1, 1, 1, 2, 3, 5]))
    return R.choice([" ", "\n", "\n\n", "  "]).join(parts)


rows = []
# Every text alone with the instructions that count, so that each rule of sentences and capitals is seen.
for text in SENTENCES:
    for n in range(1, 5):
        rows.append((text, [("length_constraints:number_sentences", dict(num_sentences=n, relation="at least")),
                            ("change_case:capital_word_frequency", dict(capital_frequency=n, capital_relation="at least"))]))
while len(rows) < 900:
    instructions = [instruction() for _ in range(R.randint(1, 3))]
    rows.append((answer([name for name, _ in instructions]), instructions))

with open(HERE / "rows.jsonl", "w", encoding="utf-8") as out:
    for key, (text, instructions) in enumerate(rows):
        names, kwargs = [name for name, _ in instructions], [arguments for _, arguments in instructions]
        given = utils.InputExample(key, names, "Write a poem about eels.", kwargs)
        strict = utils.test_instruction_following_strict(given, text).follow_instruction_list
        loose = utils.test_instruction_following_loose(given, text).follow_instruction_list
        row = dict(key=key, prompt=given.prompt, instruction_id_list=names, kwargs=kwargs, answer=text, strict=strict, loose=loose)
        out.write(json.dumps(row, ensure_ascii=False) + "\n")
