import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { load } from './load.js'

const { placeLabel } = await load('place.ts')
const places = JSON.parse(readFileSync(new URL('../../tests/knowledge/places.json', import.meta.url), 'utf8'))

test('a place reads in English as the service says it, and in Chinese as well', () => {
  for (const [place, en, zh] of places) {
    assert.equal(placeLabel(place, 'en'), en)
    assert.equal(placeLabel(place, 'zh'), zh)
  }
})
