// Where a passage stands, in one short line of the reader's language. The twin of `Place.label()` in the service.

import type { Place } from './api'
import type { Language } from './words'

const PARTS: Record<string, string> = {
  header: '页眉', footer: '页脚', notes: '备注', comment: '批注', textbox: '文本框', footnote: '脚注', endnote: '尾注',
  ocr: '识别的文字', caption: '题注', title: '标题', picture: '图片', chart: '图表', diagram: '示意图', output: '输出', hidden: '隐藏',
  contents: '目录', watermark: '水印',
}

const partName = (part: string, zh: boolean) => (zh ? (PARTS[part] ?? part) : part === 'ocr' ? 'recognized text' : part)

/** A chapter by its title, a cell of a notebook by its number; nothing where the heading says it again. */
function chapterName(chapter: string, heading: string[] | undefined, zh: boolean): string {
  if (heading?.[0]?.toLowerCase().startsWith(chapter.toLowerCase())) return ''
  const cell = /^cell (\d+)$/.exec(chapter)
  if (cell) return zh ? `单元格 ${cell[1]}` : chapter
  return /^(chapter|第)|[./]/i.test(chapter) ? chapter : `${zh ? '章节' : 'chapter'} ${chapter}`
}

export function placeLabel(place: Place, language: Language): string {
  const zh = language === 'zh'
  const words: string[] = []
  if (place.chapter) words.push(chapterName(place.chapter, place.heading, zh))
  if (place.page) words.push(zh ? `第 ${place.page} 页` : `page ${place.page}`)
  if (place.slide) words.push(zh ? `第 ${place.slide} 张幻灯片` : `slide ${place.slide}`)
  if (place.sheet) words.push(zh ? `工作表 ${place.sheet}` : `sheet ${place.sheet}`)
  if (place.cells) words.push(place.cells)
  if (place.table) words.push(zh ? `表 ${place.table}` : `table ${place.table}`)
  if (place.row) words.push(zh ? `第 ${place.row} 行` : `row ${place.row}`)
  if (place.symbol) words.push(place.symbol)
  if (place.lines) {
    const [first, last] = place.lines
    const range = first === last ? `${first}` : `${first}–${last}`
    words.push(zh ? `第 ${range} 行` : `${first === last ? 'line' : 'lines'} ${range}`)
  }
  if (place.heading?.length) words.push(place.heading.join(' › '))
  if (place.part) words.push(partName(place.part, zh))
  if (!words.some(Boolean) && place.paragraph) words.push(zh ? `第 ${place.paragraph} 段` : `paragraph ${place.paragraph}`)
  return words.filter(Boolean).join(zh ? ' · ' : ', ')
}
