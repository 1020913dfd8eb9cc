import assert from 'node:assert/strict'
import { test } from 'node:test'
import { load } from './load.js'

const { EventParser, readEvents } = await load('sse.ts')

const STREAM = ': ping\n\nevent: progress\nid: 7\ndata: {"page":1}\n\ndata: 你好\r\ndata:second\r\n\r\n\nevent: end\ndata: x\n\n'
const WHOLE = [
  { event: 'progress', data: '{"page":1}', id: '7' },
  { event: 'message', data: '你好\nsecond', id: '7' },
  { event: 'end', data: 'x', id: '7' },
]

test('events are the same however the stream is cut', () => {
  assert.deepEqual(new EventParser().push(STREAM), WHOLE)
  const parser = new EventParser()
  assert.deepEqual([...STREAM].flatMap((character) => parser.push(character)), WHOLE)
})

test('an event without its empty line is not whole yet', () => {
  assert.deepEqual(new EventParser().push('data: half\n'), [])
})

test('a character cut in two by the network arrives whole', async () => {
  const bytes = new TextEncoder().encode('data: 你好\n\n')
  const body = new ReadableStream({
    start(controller) {
      for (const byte of bytes) controller.enqueue(Uint8Array.of(byte))
      controller.close()
    },
  })
  const found = []
  for await (const event of readEvents(body)) found.push(event.data)
  assert.deepEqual(found, ['你好'])
})

test('leaving the loop closes the connection', async () => {
  let cancelled = false
  const body = new ReadableStream({
    pull: (controller) => controller.enqueue(new TextEncoder().encode('data: x\n\n')),
    cancel: () => void (cancelled = true),
  })
  for await (const event of readEvents(body)) {
    assert.equal(event.data, 'x')
    break
  }
  assert.ok(cancelled)
})
