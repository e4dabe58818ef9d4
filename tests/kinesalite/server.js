// Kinesalite on 127.0.0.1: node server.js PORT [FOLDER]
// Each SIGUSR2 puts its clock six minutes ahead, so that iterators expire, which takes five.
'use strict'

const now = Date.now
let aheadMs = 0
Date.now = () => now() + aheadMs
process.on('SIGUSR2', () => { aheadMs += 6 * 60 * 1000 })

const [port, path] = process.argv.slice(2)
const settings = {path, createStreamMs: 1, deleteStreamMs: 1, updateStreamMs: 1, shardLimit: 1000}
require('kinesalite')(settings).listen(+port, '127.0.0.1')

// It throws when a client is killed in the midst of a request, as clients of these tests are.
process.on('uncaughtException', (error) => {
  if (error.code === 'ECONNRESET') return
  console.error(error)
  process.exit(1)
})
