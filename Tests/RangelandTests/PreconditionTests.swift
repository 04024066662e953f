// SPDX-License-Identifier: Apache-2.0
//
// What only a program itself can get wrong traps, and says which rule it broke.

import Rangeland
import Testing

@Suite struct PreconditionTests {
  private func trapped(_ result: ExitTest.Result?, with message: String) -> Bool {
    String(decoding: result?.standardErrorContent ?? [], as: UTF8.self).contains(message)
  }

  @Test func `A range that does not end above its start`() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) { _ = AddressRange(start: 5, end: 5) }
    #expect(trapped(result, with: "a range has to end above its start"))
  }

  // It was an arithmetic overflow without a word.
  @Test func `The page of the last address`() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) { _ = AddressRange(pageOf: .max) }
    #expect(trapped(result, with: "the last page has no end"))
    #expect(AddressRange(pageOf: .max - 4096).end == .max - 4095)
  }

  @Test func `A memory of no frames`() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) { _ = try PhysicalMemory(frameLimit: 0) }
    #expect(trapped(result, with: "a memory has from 1 to 4,294,967,230 frames"))
  }

  @Test func `A file of another memory`() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      let file = try FileObject(name: "m", size: 1, memory: PhysicalMemory(frameLimit: 1))
      _ = try AddressSpace().map(file, length: 4096, protection: .read)
    }
    #expect(trapped(result, with: "the file's pages are frames of another memory"))
  }

  @Test func `An exchange at an unaligned address`() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) { _ = try AddressSpace().compareExchange(at: 4, expected: 0, desired: 1) }
    #expect(trapped(result, with: "the address is not a multiple of 8"))
  }
}
