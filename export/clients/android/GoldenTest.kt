// An instrumented test: on this phone, the file gives what it gave where it was made.

package example.segmenter

import androidx.test.platform.app.InstrumentationRegistry
import java.util.zip.ZipInputStream
import kotlin.math.abs
import org.junit.Assert.assertTrue
import org.junit.Test

class GoldenTest {
    private val context = InstrumentationRegistry.getInstrumentation().targetContext

    /** golden.npz: uint8 arrays by name. */
    private fun golden(): Map<String, ByteArray> {
        val arrays = mutableMapOf<String, ByteArray>()
        ZipInputStream(context.assets.open("golden.npz")).use { zip ->
            generateSequence { zip.nextEntry }.forEach { entry ->
                val npy = zip.readBytes()
                val header = 10 + (npy[8].toInt() and 0xff) + 256 * (npy[9].toInt() and 0xff)
                arrays[entry.name.removeSuffix(".npy")] = npy.copyOfRange(header, npy.size)
            }
        }
        return arrays
    }

    @Test
    fun goldenInputGivesGoldenOutput() {
        val arrays = golden()
        val pixels = arrays.getValue("pixels")
        val expected = arrays.getValue("tflite")
        LiteRtSegmenter(context, CheckedModel(context)).use { segmenter ->
            val output = segmenter.probabilities(pixels)
            val near = expected.indices.count { abs((output[it].toInt() and 0xff) - (expected[it].toInt() and 0xff)) <= 1 }
            assertTrue(near >= 0.999 * expected.size)
        }
    }
}
