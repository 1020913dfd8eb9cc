"""A small glossary: the words of tables, forms and headings, in Chinese and in English.

A question in one language then finds the row, the column or the line that is named in the other. Knows
nothing of questions; `other_language` gives the terms as the full-text index spells them.
"""

from __future__ import annotations

from collections.abc import Mapping

from quinze.knowledge.fulltext import Analyzer

# One meaning a line: Chinese words, then English ones.
_MEANINGS = """
价格 单价 售价 : price cost
欧元 : eur euro
美元 : usd dollar
金额 : amount
总额 总计 合计 总价 : total
数量 : quantity qty
姓名 名字 : name
日期 : date
年份 : year
年龄 : age
电话 : phone telephone
邮箱 邮件 : email mail
地址 住所 : address
城市 : city
国家 : country
首都 : capital
语言 : language
人口 : population
面积 : area
货币 : currency
公司 企业 : company
部门 : department
客户 顾客 : customer
作者 : author
出版 : publisher published
标题 题目 : title
类别 分类 : category
状态 : status
备注 注释 : note remark
型号 : model
颜色 : color colour
重量 : weight
长度 : length
高度 : height
温度 : temperature
压力 : pressure
速度 : speed
收入 营收 : revenue income
利润 : profit
税率 税额 : tax
折扣 : discount
预算 : budget
合同 : contract
发票 : invoice
订单 : order
库存 : stock inventory
仓库 : warehouse
病人 患者 : patient
诊断 : diagnosis
血压 : blood
结果 : result
准确 精度 : accuracy
函数 : function
参数 : parameter argument
返回 : return
"""


def other_language(analyzer: Analyzer) -> Mapping[str, tuple[str, ...]]:
    """Term -> the terms that mean the same in the other language."""
    found: dict[str, tuple[str, ...]] = {}
    for line in _MEANINGS.strip().splitlines():
        chinese, english = (side.split() for side in line.split(":"))
        stems = [analyzer.tokens(word)[0] for word in english]
        for word in chinese:
            found[word] = (*found.get(word, ()), *stems)
        for stem in stems:
            found[stem] = (*found.get(stem, ()), *chinese)
    return found
