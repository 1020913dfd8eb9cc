"""Words that say nothing of what a text is about: English ones, Chinese characters, what asks in a question.

In folded spelling (folding.py). Knows no text.
"""

FUNCTION_WORDS = frozenset(
    """
    a about above after again all also am an and any are as at be because been before being below between both
    but by can could did do does doing down during each few for from further had has have having he her here
    hers him his how i if in into is it its itself just me more most my no nor not now of off on once only or
    other our ours out over own same she should so some such than that the their theirs them then there these
    they this those through to too under until up very was we were what when where which while who whom why
    will with would you your yours
    """.split()  # noqa: SIM905
)

FUNCTION_CHARACTERS = frozenset("的了吗呢吧啊呀是在和与及或而也都就被把这那其之有些对从到由以")

CONTENT_PAIRS = frozenset(
    """
    目的 标的 的确 的士 了解 除了 明了 于是 但是 还是 凡是 现在 存在 所在 正在 在线 在职 内在 外在 潜在
    实在 和平 和谐 总和 共和 饱和 温和 参与 与会 给与 涉及 以及 及时 及格 普及 埃及 危及 或许 从而 而且
    然而 反而 也许 都市 首都 成都 京都 就业 就是 成就 就地 被子 被告 把握 这里 那里 其中 其他 其实 尤其
    之间 之前 之后 有效 有限 所有 有关 拥有 有机 有色 有权 有害 公有 国有 私有 享有 对象 对比 反对 绝对
    相对 对外 对称 面对 针对 对话 对于 关于 从事 从业 服从 到期 到达 达到 得到 到位 迟到 自由 理由 由来
    以上 以下 以前 以后 以内 以外 可以 所以 以色 以太
    """.split()  # noqa: SIM905
)
"""Words that hold a function character and mean something all the same."""

FAINT_WORDS = frozenset(
    "need want must get give show find say list mean may might shall take make use tell describ".split()  # noqa: SIM905
)
"""Stems that say little in a question, however rare they are where it is asked."""

ENGLISH_QUESTION = (
    r"\bhow (?:long|many|much|often|far|old|big|tall|high|deep|large|soon)\b"
    r"|\b(?:please|tell me|according to|what kinds? of|what sorts? of|what time)\b"
)
"""Of an English question: what asks (a regular expression)."""

QUESTION_PHRASES = frozenset(
    """
    什么时候 什么地方 为什么 是什么 有什么 什么样 什么 怎么样 怎么办 怎么 怎样 如何 多少 几个 几种 哪一个
    哪一年 哪一 哪些 哪个 哪里 哪儿 哪年 哪种 是否 能否 可否 有没有 是不是 请问 请告诉我 告诉我 多久 多大
    多长 多高 分别 吗 呢 吧 啊 呀 谁 几号 几点 几月 几日 几天 几次 几岁 几页 几位 几名 几条 几项 几台 几层
    哪天 哪月 哪位 哪家 可不可以 能不能 要不要 可以 需要 应该 应当 必须 之前 之后 每个 我们 你们
    """.split()  # noqa: SIM905
)
"""Of a Chinese question: what asks."""
