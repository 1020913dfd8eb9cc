// Which picture stands for which kind of document, and what its pages are called.

import type { IconName } from '../parts/Icon.svelte'
import { suffix } from './drop'

const BY_FORMAT: Record<string, IconName> = {
  pdf: 'pdf', pptx: 'slides', xlsx: 'table', xls: 'table', ods: 'table', csv: 'table', tsv: 'table', image: 'image',
  xlsb: 'table', html: 'web', feed: 'web', email: 'text', zip: 'page', markdown: 'text', text: 'text', docx: 'page', epub: 'knowledge', notebook: 'code',
}

const BY_SUFFIX: Record<string, IconName> = {
  '.pdf': 'pdf', '.pptx': 'slides', '.xlsx': 'table', '.xls': 'table', '.ods': 'table', '.csv': 'table', '.tsv': 'table',
  '.png': 'image', '.jpg': 'image', '.jpeg': 'image', '.webp': 'image', '.tif': 'image', '.tiff': 'image', '.bmp': 'image',
  '.html': 'web', '.htm': 'web', '.eml': 'text', '.zip': 'page', '.md': 'text', '.txt': 'text', '.docx': 'page', '.epub': 'knowledge', '.ipynb': 'code',
}

export function kindIcon(name: string, format = ''): IconName {
  return BY_FORMAT[format] ?? BY_SUFFIX[suffix(name)] ?? (format ? 'code' : 'page')
}

/** The word for what `pages` counts: slides, sheets, or pages. */
export function pagesWord(format: string): 'slides' | 'sheets' | 'pagesCount' {
  return format === 'pptx' ? 'slides' : BY_FORMAT[format] === 'table' ? 'sheets' : 'pagesCount'
}
