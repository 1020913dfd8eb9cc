// Why something did not work, in the reader's language. The service says it in English with the names and numbers; in
// Chinese its code says what kind of failure it is. A kind that is not in the table is shown as the service said it.

import type { Language } from './words'

export interface Failed {
  error: string
  hint: string
  code: string
}

const REASONS: Record<string, { error: string; hint: string }> = {
  encrypted_document: { error: '文件有密码保护。', hint: '用密码打开后，另存一份不加密的副本再添加。' },
  empty_document: { error: '文件里没有文字。', hint: '请检查它是否保存、复制完整；如果打开时看得到文字，请存成 PDF 或更清晰的图片再添加。' },
  reader_limit: { error: '文件太大，或者读取太费时间、内存，已停止。', hint: '请拆成几个小文件再添加。' },
  too_large: { error: '文件太大，超过了允许的上限。', hint: '请拆分或缩小后再添加；上限可在设置中调整。' },
  unsupported_document: { error: '不是 Quinze 能读的文件类型。', hint: '如果是文档，请另存为 PDF、Word 或 UTF-8 纯文本再添加。' },
  unreadable_document: { error: '文件读不出来，可能已损坏或与文件名不符。', hint: '请确认有读取权限；也可以重新下载，或用原来的程序打开后另存一份。' },
  reading_cancelled: { error: '读取中途停止了，文件本身没有问题。', hint: '点“重试”即可。' },
  storage: { error: '无法写入磁盘，或者数据库出了问题。', hint: '请检查磁盘是否已满，文件夹是否可写。' },
  busy: { error: 'Quinze 正忙。', hint: '请稍后再试。' },
  context_length_exceeded: { error: '内容太长，超出了模型的上下文长度。', hint: '请缩短内容，新开一个对话，或在对话选项里选择放不下时舍弃什么。' },
  knowledge_base_not_found: { error: '没有这个知识库。', hint: '它可能已被删除或改名。' },
  document_not_found: { error: '找不到这份文档，或者它的文件已不在原处。', hint: '请重新添加，或把它移除。' },
  model_not_found: { error: '没有这个模型，或者它的文件已不在原处。', hint: '请在“模型”页检查或重新添加。' },
  run_not_found: { error: '没有这次训练，或者它的文件夹已不在原处。', hint: '请检查路径：文件夹里应有 run.toml。' },
  missing_package: { error: '缺少所需的软件包。', hint: "训练需要 PyTorch：pip install 'quinze[train]'" },
  unsupported_model: { error: '引擎还不能运行这种模型。', hint: '请换一个 Llama 结构的 GGUF 或 safetensors 模型。' },
}

/** The failure as it is shown; `said` is what the service said, kept for whoever wants the details. */
export function reason(failed: Failed, language: Language): { error: string; hint: string; said: string } {
  const known = language === 'zh' ? REASONS[failed.code] : undefined
  return { error: known?.error ?? failed.error, hint: known?.hint ?? failed.hint, said: `${failed.error} ${failed.hint}`.trim() }
}
