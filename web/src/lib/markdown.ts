// Markdown as tokens, never as HTML: the page draws each token as an element of its own, so no text that a model or a
// document holds can become markup. Given text that grows, only the last, open block is parsed again.

import { Lexer, type Token, type Tokens } from 'marked'

export interface Block {
  key: number
  token: Token
}

/** Grows by `push`; `blocks` are what to draw. A block that is closed keeps its object for ever. */
export class MarkdownStream {
  private closed: Block[] = []
  private open = ''
  private next = 0
  text = ''
  blocks: Block[] = []

  constructor(text = '') {
    if (text) this.push(text)
  }

  push(piece: string): void {
    this.text += piece
    this.open += piece
    const tokens = lex(this.open)
    let last = Math.max(0, tokens.findLastIndex((token) => token.type !== 'space'))
    const done = tokens.slice(0, last).map((token) => token.raw).join('')
    // Where the lexer normalised something, its raw text no longer adds up to the source; then all of it stays open.
    if (this.open.startsWith(done)) this.open = this.open.slice(done.length)
    else last = 0
    const closing = drawn(tokens.slice(0, last), this.next)
    this.closed.push(...closing)
    this.next += closing.length
    this.blocks = [...this.closed, ...drawn(tokens.slice(last), this.next)]
  }
}

/** An answer as blocks: only what a model wrote is Markdown; a document's own words are drawn as they stand. */
export function answerBlocks(kind: 'generated' | 'quoted' | 'none', text: string): Block[] {
  if (kind === 'generated') return new MarkdownStream(text).blocks
  return kind === 'quoted' ? quotedBlocks(text) : [{ key: 0, token: verbatim(text, []) }]
}

/** Quotes, each with its marks at its end. A "[1]" in the middle is the document's own and stays text. */
export function quotedBlocks(text: string): Block[] {
  const tokens: Token[] = []
  const fences = /(^|\n\n)```\n([\s\S]*?)\n```\n((?:\[\d+\])+)(?=\n\n|$)/g
  let start = 0
  const running = (part: string) => {
    for (const quote of part.split('\n\n')) {
      const found = /^([\s\S]*?)\s*((?:\[\d+\])*)\s*$/.exec(quote)
      if (found && quote.trim()) tokens.push(verbatim((found[1] ?? '').trim(), numbers(found[2] ?? '')))
    }
  }
  for (const match of text.matchAll(fences)) {
    running(text.slice(start, match.index))
    tokens.push({ type: 'code', raw: match[0], text: match[2] ?? '' } as Tokens.Code, verbatim('', numbers(match[3] ?? '')))
    start = match.index + match[0].length
  }
  running(text.slice(start))
  return tokens.map((token, key) => ({ key, token }))
}

const numbers = (marks: string) => [...marks.matchAll(/\d+/g)].map((found) => Number(found[0]))

function verbatim(text: string, cites: number[]): Token {
  const tokens = [{ type: 'verbatim', raw: text, text }, ...cites.map((number) => ({ type: 'cite', raw: '', number }))]
  return { type: 'paragraph', raw: text, text, tokens } as Tokens.Paragraph
}

export function lex(text: string): Token[] {
  return new Lexer({ gfm: true }).lex(text)
}

function drawn(tokens: Token[], key: number): Block[] {
  return tokens.filter((token) => token.type !== 'space').map((token, i) => ({ key: key + i, token }))
}

/** Where a link may lead: the web and mail. Anything else ("javascript:", "data:", "file:") is shown as its text. */
export function safeLink(href: string): string | null {
  let url: URL
  try {
    url = new URL(href)
  } catch {
    return null
  }
  return ['http:', 'https:', 'mailto:'].includes(url.protocol) ? url.href : null
}

/** What is shown after a link's text, so that nobody is led elsewhere than they read. "" when the text says it already. */
export function linkTarget(token: Tokens.Link): string {
  const url = safeLink(token.href)
  if (!url) return ''
  const target = url.startsWith('mailto:') ? url.slice(7) : new URL(url).host
  return token.text.includes(target) ? '' : target
}

export type Piece = { text: string; cite?: undefined } | { cite: number; text: string }

/** Cuts "Open at nine [1][2]." into text and citation markers; a number that is not `known` stays text. */
export function pieces(text: string, known: (number: number) => boolean): Piece[] {
  const found: Piece[] = []
  let start = 0
  for (const match of text.matchAll(/\s?\[(\d{1,3})\]/g)) {
    const number = Number(match[1])
    if (!known(number)) continue
    if (match.index > start) found.push({ text: text.slice(start, match.index) })
    found.push({ cite: number, text: match[0] })
    start = match.index + match[0].length
  }
  if (start < text.length) found.push({ text: text.slice(start) })
  return found
}

const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'", nbsp: ' ' }

/** marked leaves the five entities of its source in `text`; they are drawn as the characters they stand for. */
export function plain(text: string): string {
  return text.replace(/&(amp|lt|gt|quot|#39|nbsp);/g, (whole, name: string) => ENTITIES[name] ?? whole)
}
