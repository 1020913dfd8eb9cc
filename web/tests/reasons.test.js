import assert from 'node:assert/strict'
import { test } from 'node:test'
import { load } from './load.js'

const { reason } = await load('reasons.ts')

test('a known failure is told in Chinese, with what to do; the service’s own words stay at hand', () => {
  const told = reason({ error: 'a.pdf is locked with a password.', hint: 'Save a copy.' }, 'zh')
  assert.match(told.error, /密码/)
  assert.match(told.hint, /副本/)
  assert.equal(told.said, 'a.pdf is locked with a password. Save a copy.')
})

test('English, and what is not known, stays as the service said it', () => {
  const failure = { error: 'Something new.', hint: 'Do this.' }
  assert.equal(reason(failure, 'zh').error, 'Something new.')
  assert.equal(reason({ error: 'a.pdf is locked with a password.', hint: '' }, 'en').error, 'a.pdf is locked with a password.')
})
