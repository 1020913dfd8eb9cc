"""A glossary: words that ask for the same thing, in Chinese and in English, and how their answers look.

A question then finds the row, the column or the line that is named otherwise or in another language:
"born" finds "Date of Birth", 多少钱 finds "Price", 电话 what looks like a telephone number. Knows nothing
of questions; the terms are spelled as the full-text index spells them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from quinze.knowledge.fulltext import Analyzer

# One meaning a line: Chinese words, then English ones. A single Chinese character is found, but does not ask.
_MEANINGS = """
价格 单价 售价 价钱 : price
费用 花费 成本 收费 开销 : cost expense fee charge
价格 费用 单价 成本 花费 : price cost
支付 付款 付了 花了 : pay paid payment
金额 款额 : amount
总额 总计 合计 总价 总共 一共 共计 : total sum
数量 个数 件数 多少个 : quantity qty count
欧元 : eur euro
美元 : usd dollar
姓名 名字 名称 : name
日期 时间 哪天 几号 : date
日期 : day
年份 哪年 : year
年龄 岁数 岁 : age old
出生 生日 诞生 : born birth birthday birthdate
死亡 去世 逝世 : die died dead death
电话 手机 号码 联系 : phone telephone mobile tel
邮箱 邮件 电邮 : email mail
网址 网站 官网 : website web url site homepage
地址 住址 住所 位于 地点 位置 : address location locate situate
住在 居住 住所 住址 : live reside residence residenc address
城市 : city town
国家 : country nation
来自 国家 : from country
首都 : capital
语言 : language
人口 : population inhabitant
面积 大小 : area size
尺寸 大小 : size dimension
货币 币种 : currency money
公司 企业 : company corporation firm
部门 : department division
客户 顾客 : customer client
员工 雇员 职工 : employee staff worker
职位 职务 : position job title
作者 撰写 编写 : author write wrote written writer
编制 制作 制表 撰写 : prepared prepare
出版 发行 : publisher published publish
创立 创办 成立 创建 建立 : found founded founder establish start
发明 : invent invention inventor patent
专利 : patent
收购 购买 买下 : buy bought purchase acquire acquisition acquir
出售 销售 卖出 : sell sold sale
增长 提高 上升 : grow grew growth increase rise rose
减少 降低 下降 : decrease reduce fall fell decline
最大 最高 : maximum max largest highest
最小 最低 : minimum min smallest lowest
标题 题目 : title heading
类别 分类 类型 种类 : category type kind class genre
状态 状况 : status state
备注 注释 附注 : note remark
备注 注释 : notes
批注 评论 : comment
脚注 : footnote
页眉 : header
页脚 : footer
型号 : model
品牌 制造 厂家 厂商 生产 : make brand manufacturer producer
供应 供货 : supplier vendor
颜色 : color colour
重量 体重 : weight weigh heavy
长度 : length long
高度 身高 : height tall high
宽度 : width wide
深度 : depth deep
温度 气温 低温 高温 : temperature temp
压力 : pressure
速度 主频 : speed fast
频率 主频 : frequency
频率 : hz ghz
电压 : voltage volt
里程 : odometer mileage mile
油耗 耗油 : fuel consumption mpg
距离 : distance far
收入 营收 营业额 : revenue income sales turnover
利润 盈利 : profit earning
税率 税额 税费 税金 : tax
折扣 优惠 : discount
佣金 提成 : commission
预算 : budget
合同 协议 : contract agreement
发票 收据 小票 : invoice receipt bill
订单 : order
库存 存货 : stock inventory
仓库 仓储 储存 存储 : warehouse storage store
编号 号码 序号 单号 : number no id
密码 口令 : password passcode
病人 患者 : patient
医生 医师 大夫 : doctor dr physician md
诊断 病情 : diagnosis assessment
检验 化验 检查 : lab test examination
血压 : blood pressure bp
血型 : blood
胆固醇 : cholesterol
血糖 葡萄 : glucose
心率 脉搏 : heart pulse
药物 药品 用药 : medication drug medicine
剂量 用量 : dose dosage mg
过敏 : allergy allergies
手术 : surgery operation
症状 : symptom
结果 : result finding
发现 显示 : finding reveal show
准确 精度 : accuracy
准确 : accurate precision
首席 总裁 : ceo chief president
会员 : member
积分 : points point
退货 退还 : return refund
保修 质保 : warranty guarantee
维修 修理 : repair fix
保养 维护 : service maintenance servic
车主 投保 被保 : insured owner
保险 : insurance policy
电影 影片 : movie film
场次 放映 : show showtime screening
收银 : cashier
服务员 : server waiter waitress
客人 宾客 : guest
页数 页码 : page
会议 : meeting
工资 薪水 薪酬 : salary wage pay
假期 年假 休假 : leave vacation holiday
目标 : target goal objective
客户 用户 : user
学习 : learning
参数 : parameter argument
函数 : function def
方法 : method
返回 : return
缩进 : indent
前缀 : prefix
后缀 : suffix
插入 : insert
删除 去掉 移除 : delete remove strip
解析 : parse
读取 读入 : read
写入 : write
文件 : file
空格 空白 : space whitespace
换行 折行 : wrap newline fill
截断 缩短 : truncate shorten
排序 有序 : sort sorted order
查找 搜索 : search find locate
列表 : list
字典 : dict dictionary
分隔 : delimiter separator
引号 : quote
选项 : option
默认 缺省 : default
错误 异常 : error exception
模块 : module
每行 行 : line
公鸭 雄性 : male drake
演讲 讲者 : speaker
总体 整体 : overall
部分 : part section
连接 相连 : join connect link attach fasten
处理器 处理 : processor cpu
影响 后果 : effect impact influence
说明 描述 : description
要求 条件 : requirement require must
材料 文件 证件 : document documents
"""

# Words that stand for one another in one language only; verbs with irregular forms among them.
_SAME = """
buy bought | sell sold | write wrote written | pay paid | hold held | make made | give gave given
begin began begun start | win won | lose lost | send sent | speak spoke spoken | grow grew grown | rise rose
lead led | build built construct | teach taught | think thought | choose chose chosen select | keep kept
child children | man men | woman women | person people | foot feet | mouse mice
join connect attach fasten | processor cpu | picture image photo figure | car vehicle automobile
big large size | film movie screenplay | script screenplay screenwriting | start begin launch introduce
server waiter | illness disease sick | quick fast speed | reveal show finding | rate percent percentage
abbreviation acronym | buyer customer purchaser | firm company | town city | job position occupation
doctor physician | kid child | wage salary | end finish stop | allow permit | aim goal objective purpose
need require | delete remove | lawyer attorney | error mistake | author writer creator | pupil student
pupils students | price cost | amount sum total | quantity count number | dose dosage mg | mean average
需要 必须 提供 | 带上 提供 | 材料 资料 文件 | 申请 申报 | 赔偿 赔付 赔钱 | 最多 上限 最高 | 至少 下限 最低
断电 停电 掉电 | 丢失 持久 | 保养 维护 维修 | 通过 批准 | 影响 导致 下降 | 看到 查看 打开 | 楼层 本座
仓储 储存 存储 仓库 | 范围 之间 | 解除 取消 | 登记 注册 | 优惠 促销 折扣 | 假期 年假 休假 | 公司 企业
"""

# What asks without a word of the meaning: the words that it stands for.
_IMPLIED = (
    (r"多少钱|几块钱|几元|贵不贵|\bhow expensive\b|\bhow much (?:is|are|was|were|does|do|did)\b",
     "价格 单价 金额 price cost amount total"),
    (r"几岁|多大年纪|\bhow old\b", "年龄 岁 age year"),
    (r"\bwho (?:wrote|prepared|made|created)\b|谁写|谁编|谁做", "作者 author prepared by"),
    (r"\bwhere\b.*\blives?\b|住在哪|住哪", "地址 住所 城市 address city country"),
    (r"\bhow (?:big|large)\b|多大", "面积 大小 area size"),
    (r"\bhow heavy\b|多重", "重量 weight"),
    (r"\bhow (?:tall|high)\b|多高", "高度 height"),
    (r"\bhow (?:long|soon)\b|多久|多长", "时间 期限 小时 天 hour day week month duration length"),
    (r"\bhow fast\b|多快", "速度 speed"),
    (r"\bhow far\b|多远", "距离 distance"),
    (r"几楼|哪一?层|\b(?:what|which) floor\b", "楼 层 floor 3f"),
    (r"\bwho\b.*\bauthor\b|作者是谁", "author by creator"),
)  # fmt: skip

# How the answer looks: for the words that ask for it.
_SIGNS = (
    (
        "电话 手机 联系 phone telephone tel mobile contact",
        r"(?<![\w-])(?:\+?\d{1,3}[ .-])?(?:\(\d{2,4}\) ?|\d{2,4}[.-])\d{3,4}(?:[.-]?\d{4})\b"
        r"|(?<!\d)1\d{10}(?!\d)",
    ),
    ("邮箱 邮件 电邮 email mail", r"[\w.+-]+@[\w-]+\.\w+"),
    ("网址 网站 官网 website url homepag", r"https?://|www\."),
    (
        "价格 单价 售价 价钱 price cost",
        r"[$€¥￥£]\s?\d|\d\s?(?:元|美元|欧元|dollars?|euros?|pounds?|yuan|USD|EUR|CNY|RMB)",
    ),
    ("比例 百分 percent percentag rate share", r"\d\s?[%％]"),
    (
        "颜色 color colour",
        r"(?i)\b(?:black|white|red|green|blue|silver|gr[ae]y|yellow|brown|orange)\b|[黑白红绿蓝银灰黄棕]色",
    ),
    ("author writer", r"^[A-Z][\w.-]+(?: [A-Z][\w.-]*)+, (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"),
)


@dataclass(frozen=True, slots=True)
class Glossary:
    """Each map is from a term of the index."""

    translations: Mapping[str, tuple[str, ...]]
    """... to those that mean the same in the other language."""
    synonyms: Mapping[str, tuple[str, ...]]
    """... to those that mean nearly the same in its own."""
    signs: Mapping[str, re.Pattern[str]]
    """... to what an answer looks like."""

    def related(self, term: str) -> tuple[str, ...]:
        return (*self.translations.get(term, ()), *self.synonyms.get(term, ()))


def read_glossary(analyzer: Analyzer) -> Glossary:
    translations: dict[str, dict[str, None]] = {}
    synonyms: dict[str, dict[str, None]] = {}

    def relate(table: dict[str, dict[str, None]], one: str, others: list[str]) -> None:
        if len(one) > 1:
            table.setdefault(one, {}).update(dict.fromkeys(other for other in others if other != one))

    for line in _MEANINGS.strip().splitlines():
        chinese, english = (side.split() for side in line.split(":"))
        stems = [analyzer.tokens(word)[0] for word in english]
        words = [word for word in chinese if len(word) <= 2]
        for word in words:
            relate(translations, word, stems)
            relate(synonyms, word, words)
        for stem in stems:
            relate(translations, stem, words)
            relate(synonyms, stem, stems)
    for line in _SAME.strip().splitlines():
        for group in line.split("|"):
            terms = [word if _is_han(word) else analyzer.tokens(word)[0] for word in group.split()]
            for term in terms:
                relate(synonyms, term, terms)
    return Glossary(
        {term: tuple(others) for term, others in translations.items()},
        {term: tuple(others) for term, others in synonyms.items()},
        {
            word if _is_han(word) else analyzer.tokens(word)[0]: re.compile(pattern)
            for words, pattern in _SIGNS
            for word in words.split()
        },
    )


def implied_terms(question: str, analyzer: Analyzer) -> tuple[tuple[str, ...], ...]:
    """What a question asks for without saying it: for each such thing, the terms that name it.

    >>> implied_terms("How heavy is it?", Analyzer())
    (('重量', 'weight'),)
    """
    return tuple(
        tuple(word if _is_han(word) else analyzer.tokens(word)[0] for word in words.split())
        for pattern, words in _IMPLIED
        if re.search(pattern, question, re.IGNORECASE)
    )


def _is_han(word: str) -> bool:
    return word[0] >= "\u3400"
