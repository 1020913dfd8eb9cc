import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { load } from './load.js'

const { reason } = await load('reasons.ts')
const errors = readFileSync(new URL('../../src/quinze/errors.py', import.meta.url), 'utf8')
const source = readFileSync(new URL('../src/lib/reasons.ts', import.meta.url), 'utf8')

test('a failure is told in Chinese by its code, with what to do; the service’s own words stay at hand', () => {
  const told = reason({ error: 'a.pdf is locked with a password.', hint: 'Save a copy.', code: 'encrypted_document' }, 'zh')
  assert.match(told.error, /密码/)
  assert.match(told.hint, /副本/)
  assert.equal(told.said, 'a.pdf is locked with a password. Save a copy.')
})

test('English, and a code that is not known, stays as the service said it', () => {
  const failure = { error: 'Something new.', hint: 'Do this.', code: 'something_new' }
  assert.equal(reason(failure, 'zh').error, 'Something new.')
  assert.equal(reason({ ...failure, code: '' }, 'zh').hint, 'Do this.')
  assert.equal(reason({ ...failure, code: 'encrypted_document' }, 'en').error, 'Something new.')
})

test('every code in the table is one of the service’s, and every way a document fails has its words', () => {
  const codes = new Set([...errors.matchAll(/code(?:: \w+\[\w+\])? = (?:\d+, \d+, )?"(\w+)"/g)].map((found) => found[1]))
  const told = [...source.matchAll(/^ {2}(\w+): \{ error:/gm)].map((found) => found[1])
  assert.deepEqual(told.filter((code) => !codes.has(code)), [])
  const documents = [...errors.matchAll(/class \w+\(DocumentError\):\n {4}code = "(\w+)"/g)].map((found) => found[1])
  assert.equal(documents.length, 5)
  for (const code of [...documents, 'unreadable_document', 'too_large']) assert.ok(told.includes(code), code)
})
