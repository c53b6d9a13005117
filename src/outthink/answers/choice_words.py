"""Words beside the letters of choices, each as one mark: what speaks for a letter, against it, or of neither.

Knows words and phrases of English and some other languages. Does not know letters or what is concluded from marks.
"""

from __future__ import annotations

import re

# The marks: `a` answer, `o` option, `g` good, `f` final, `x` bad, `n` not, `b` is, `p` are, `c` therefore,
# `k` actually, `v` choose, `h` in doubt, `q` supposed, `e` except, `r` because, `j` and, `z` none, `y` none of the
# above, `i` and `t` little words, `u` an opening bracket, `w` any other word. Capitals are parts of phrases, which
# become one of these; `J` and `N` (yes, no) stay at the end of a line.

WORDS: dict[str, str] = {
    word: mark
    for mark, words in {
        "a": "answer answers ans verdict respuesta réponse antwort risposta resposta ответ odpowiedź svar antwoord"
        " cevap jawaban đáp sagot odpověď válasz 答案 正解 答え 回答 정답 답 الجواب الإجابة",
        "o": "option options choice choices letter alternative statement opción opcion opção opzione lettre lettera"
        " letra buchstabe вариант 选项 選項 项 項 選択肢 번",
        "g": "correct right best accurate appropriate better winner suitable correcta correcto richtig richtige korrekt"
        " bonne correcte juste corretta correta certa verdadera verdadero verdadeira rätt riktig rigtig juist poprawna"
        " prawidłowa správná správně doğru đúng benar oikein σωστή σωστό правильный правильно верно верен верный सही"
        " الصحيحة صحيحة נכונה נכון 正确 正確 对 對 正しい 맞 옳",
        "f": "final my",
        "x": "wrong incorrect false invalid impossible irrelevant inaccurate unlikely implausible out fail fails failed"
        " falsch faux fausse incorrecta incorrecto falsa falso incorrecte sbagliata errada errado fel feil forkert"
        " onjuist fout błędne błędna chybná yanlış sai salah väärin λάθος неверно неверны неправильно неправильны"
        " неверен गलत خاطئة خطأ שגויה שגוי 错 錯 错误 錯誤 不对 不對 不正确 不正確 間違い 違う 違います 誤り"
        " ではない ではなく じゃない ではありません じゃありません 아니라 아니고 아닙 틀리 틀립 틀렸 틀린 오답",
        "n": "not weder noch né ani ни unlike beats never nor without over than cannot nicht kein keine pas não nao не"
        " nie niet inte ikke değil 不 不是 而不是 而非 并非 不选 不選",
        "b": "is be was equals seems looks appears ist lautet est es è é jest är er 是 为 為 は が 은 는 이 가",
        "p": "are were sont sind sono são",
        "c": "so therefore thus hence accordingly consequently conclusion overall ultimately finally donc luego"
        " entonces daher deshalb somit folglich quindi dunque portanto logo поэтому значит więc 所以 因此 故 综上"
        " よって したがって 따라서",
        "k": "actually wait sorry correction scratch edit",
        "v": "meant choose chose chosen choosing pick picked picking select selected selecting prefer elijo escojo"
        " choisis wähle scelgo escolho выбираю 选 選 选择 選擇",
        "h": "maybe perhaps could might may possibly",
        "q": "if unless suppose assume whether between",
        "r": "because since as for while whereas but though although however weil denn car porque perché sondern mais"
        " pero sino ma но 因为 因為 而",
        "j": "and or plus und oder sowie et ou y o e и или та або i oraz lub albo nebo och eller og en ve veya dan"
        " atau và hoặc και ή și sau és vagy tai 和 与 與 或 或者 或是 还是 還是 及 以及 跟 同 と か や そして および"
        " 및 와 과 또는 이나 و أو और या או versus vs 还有 還有 并且 並且 または あるいは もしくは",
        "t": "the a an its clearly definitely likely probably most more much far indeed simply exactly given both just"
        " even else either of again now very la le el il lo les l der die das de den 应该 應該 都 も",
        "i": "it this that which c'est would will must should has have been being to does do did can",
        "z": "none neither",
        "A": "along together combined addition",
        "B": "think believe expect",
        "D": "except",
        "E": "✓ ✔ ✅ ☑",
        "F": "✗ ✘ ✖ ❌",
        "G": "go going went stick stay agree",
        "I": "instead rather opposed",
        "J": "yes",
        "M": "match matches matching corresponds correspond corresponding",
        "N": "no non nein",
        "O": "only",
        "P": "ni",
        "Q": "also then auch aussi también também anche ook",
        "R": "rule rules ruled ruling",
        "U": "on towards toward",
        "V": "opt opted opting vote voted voting settle settled settling lean leaning",
        "W": "well",
        "X": "eliminate eliminates eliminated eliminating exclude excludes excluded excluding reject rejects rejected"
        " discard discards discarded dismiss dismissed",
        "Y": "all above",
        "Z": "with",
    }.items()
    for word in words.split()
}
_CAPITALS = "ABCDEFGHIJKMNOPQRSTUVWXYZ"
# What one of must be there, the phrase, its mark.
_PHRASES: tuple[tuple[str, re.Pattern[str], str], ...] = tuple(
    (some, re.compile(pattern), mark)
    for some, pattern, mark in (
        ("YD", r"Yr(?=[to]{0,3}L)|D", "e"),  # all but, except
        ("jWAQ", r"\.j(?=[hto]{0,3}L)|rWr|AZ|[wi]Ai|rQ", "j"),  # as well as, along with, in addition to, but also
        ("B", r"hB", "q"),  # you might think
        ("j", r"(?<=[L)])j\.(?=[to]{0,3}L)", "j"),  # A vs. B
        ("E", r"(?<=[|.,;-])E(L\)?)", r"\1g"),  # ✓ A
        ("F", r"(?<=[|.,;-])F(L\)?)", r"\1x"),
        ("E", r"(?<=w)E(?=[|.,;])", "-g"),  # A. Paris ✓
        ("F", r"(?<=w)F(?=[|.,;])", "-x"),
        ("E", r"E", "g"),
        ("F", r"F", "x"),
        ("N", r"(?<=L\?\.)N", "x"),  # A? No.
        ("J", r"(?<=L\?\.)J", "g"),
        ("u", r"(?<=[L)])ur?[jhQ]+(?=[to]{0,2}L)", "j"),  # A (or B)
        ("P", r"P(?=[to]{0,2}L,?P)|(?<=L)P(?=[to]{0,2}L)|(?<=L,)P(?=[to]{0,2}L)", "n"),  # ni A ni B; B ni sahihi
        ("N", r"Nb(?=[to]{0,3}L)", "n"),  # no es A
        ("IRXN", r"It|Ii|In|R(?:x)(?=[to]{0,3}L)|X(?=[to]{0,3}L)|N(?=[to]{0,2}L)", "n"),  # instead of, rule out B, no B
        ("O", r"nO", "t"),
        ("O", r"(?<=bt)O(?![owt]{0,2}[xn])", "g"),  # is the only one
        ("RX", r"Rx|X", "x"),
        ("ZV", r"GZ|aZ|V[rUZ]", "v"),
        ("M", r"M[ti]{0,2}(?=[to]{0,3}L)", "c"),
        ("N", r"N[,.:]+(?=[to]{0,2}L)", "k"),
        ("Y", r"[Yz]t+Y", "y"),  # all of the above
        ("OQ", r"[OQ]", "t"),
        (_CAPITALS, r"[A-IKMO-RT-Z]|[JN](?!\.?\|)", "w"),
    )
)


def mark(word: str) -> str:
    """The mark of a word, two of one such as `answer's`."""
    word = word.lower().replace("’", "'")
    stem, _, tail = word.partition("'")
    return WORDS.get(word) or ("n" if tail == "t" else WORDS.get(stem, "w") + "b" if tail == "s" else "w")


def marked_phrases(marks: str) -> str:
    """Marks with those of phrases made one; letters, `L`, stay as they are."""
    there = set(marks)
    for some, phrase, one in _PHRASES:
        if not there.isdisjoint(some):
            marks = phrase.sub(one, marks)
    return marks
