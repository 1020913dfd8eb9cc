// Why a document could not be read, in the reader's language. The service says it in English; its words are recognised
// here by kind. What is not recognised is shown as the service said it. (A code on each failure would make this a table.)

import type { Language } from './words'

interface Reason {
  said: RegExp
  error: string
  hint: string
}

const REASONS: Reason[] = [
  { said: /password/, error: '文件有密码保护。', hint: '用密码打开后，另存一份不加密的副本再添加。' },
  { said: /is encrypted/, error: '文件以无法识别的方式加密。', hint: '用原来的程序打开，打印成新的 PDF 再添加。' },
  { said: /no text was found/, error: '读完了，但没有找到文字。', hint: '如果打开时看得到文字，请存成 PDF 或更清晰的图片再添加。' },
  { said: /\bis empty\b/, error: '文件是空的。', hint: '请检查它是否保存、复制完整。' },
  { said: /took longer than|made no progress/, error: '读取时间过长，已停止。', hint: '可以拆成几个小文件再添加。' },
  { said: /MiB of memory|needs more memory/, error: '读取占用的内存过多，已停止。', hint: '可以拆成几个小文件再添加。' },
  { said: /at most [\d,.]+ MB|unpacks to|at most [\d,]+ are read/, error: '文件太大。', hint: '请拆分，或缩小后再添加。' },
  { said: /binary file of a kind|does not read|Not a kind|not a file/i, error: '不是 Quinze 能读的文件类型。', hint: '如果是文档，请另存为 PDF、Word 或纯文本再添加。' },
  { said: /fit no character encoding/, error: '无法识别文字编码。', hint: '请另存为 UTF-8 编码的文本。' },
  { said: /cannot be opened|cannot be read: /, error: '打不开这个文件。', hint: '请确认它还在原处，并且有读取权限。' },
  { said: /damaged|is not |is no |The process that was reading/, error: '文件已损坏，或内容与文件名不符。', hint: '请重新下载，或用原来的程序打开后另存一份。' },
]

/** The failure as it is shown; `said` is what the service said, kept for whoever wants the details. */
export function reason(failure: { error: string; hint: string }, language: Language): { error: string; hint: string; said: string } {
  const known = language === 'zh' ? REASONS.find(({ said }) => said.test(failure.error)) : undefined
  return { error: known?.error ?? failure.error, hint: known?.hint ?? failure.hint, said: `${failure.error} ${failure.hint}`.trim() }
}
