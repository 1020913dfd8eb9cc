// Server-sent events out of a fetch body. Given pieces of text in any cut, yields whole events. Knows nothing of the API.

export interface ServerEvent {
  event: string
  data: string
  id: string
}

/** Collects pieces; `push` returns the events that are whole by now. Comments (pings) are dropped. */
export class EventParser {
  private rest = ''
  private event = ''
  private data: string[] = []
  private id = ''

  push(piece: string): ServerEvent[] {
    const text = this.rest + piece
    const found: ServerEvent[] = []
    let start = 0
    for (;;) {
      const end = nextLineEnd(text, start)
      if (!end) break
      const whole = this.line(text.slice(start, end.at))
      if (whole) found.push(whole)
      start = end.next
    }
    this.rest = text.slice(start)
    return found
  }

  private line(line: string): ServerEvent | null {
    if (line === '') return this.dispatch()
    const colon = line.indexOf(':')
    if (colon === 0) return null
    const field = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (field === 'event') this.event = value
    else if (field === 'data') this.data.push(value)
    else if (field === 'id') this.id = value
    return null
  }

  private dispatch(): ServerEvent | null {
    const whole = this.data.length ? { event: this.event || 'message', data: this.data.join('\n'), id: this.id } : null
    this.event = ''
    this.data = []
    return whole
  }
}

function nextLineEnd(text: string, start: number): { at: number; next: number } | null {
  for (let i = start; i < text.length; i++) {
    if (text[i] === '\n') return { at: i, next: i + 1 }
    if (text[i] === '\r') {
      // The \n of a \r\n may still be on its way.
      if (i + 1 === text.length) return null
      return { at: i, next: text[i + 1] === '\n' ? i + 2 : i + 1 }
    }
  }
  return null
}

/** The events of a response, until it ends. Leaving the loop early closes the connection. */
export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
  const parser = new EventParser()
  const decoder = new TextDecoder()
  const reader = body.getReader()
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      yield* parser.push(decoder.decode(value, { stream: true }))
    }
  } finally {
    await reader.cancel().catch(() => undefined)
  }
}
