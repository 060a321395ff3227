// The shortest honest way to run a compressed segmenter on Android, twice: with LiteRT 2, and with MediaPipe.
//
// Gradle: implementation("com.google.ai.edge.litert:litert:2.3.0")
//         implementation("com.google.mediapipe:tasks-vision:0.10.29")
// FetchModel.kt brings model.tflite, labels.txt and manifest.json into the app's assets; golden.npz is for the test alone.

package example.segmenter

import android.content.Context
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.mediapipe.framework.image.BitmapImageBuilder
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.vision.core.RunningMode
import com.google.mediapipe.tasks.vision.imagesegmenter.ImageSegmenter
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import org.json.JSONObject

/** model.tflite of the assets, its bytes and what the manifest says of it. Throws where it is not that file. */
class CheckedModel(context: Context, folder: String = "") {
    val entry: JSONObject
    val bytes: ByteArray
    val name = if (folder.isEmpty()) "model.tflite" else "$folder/model.tflite"

    init {
        val text = context.assets.open(name.replace("model.tflite", "manifest.json")).bufferedReader().use { it.readText() }
        val files = JSONObject(text).getJSONArray("files")
        entry = (0 until files.length()).map(files::getJSONObject).first { it.getString("format") == "tflite" }
        bytes = context.assets.open(name).use { it.readBytes() }
        val digest = MessageDigest.getInstance("SHA-256").digest(bytes).joinToString("") { "%02x".format(it) }
        check(digest == entry.getString("sha256")) { "$name is not the file that the manifest describes" }
    }

    /** Sizes along "H", "W" and "C" of its "input" or "output". */
    fun side(end: String, axis: Char): Int {
        val spec = entry.getJSONObject(end)
        return spec.getJSONArray("shape").getInt(spec.getString("layout").indexOf(axis))
    }
}

/** LiteRT alone: pixels in, probabilities out. Nothing is normalised: the file takes RGB, 0 to 255. Use it from one thread. */
class LiteRtSegmenter(context: Context, checked: CheckedModel, threads: Int = 2) : AutoCloseable {
    val height = checked.side("input", 'H')
    val width = checked.side("input", 'W')
    val classes = checked.side("output", 'C')
    private val model = CompiledModel.create(
        context.assets,
        checked.name,
        CompiledModel.Options(Accelerator.CPU).apply { cpuOptions = CompiledModel.CpuOptions(numThreads = threads) },
    )
    private val given = model.createInputBuffers()
    private val made = model.createOutputBuffers()

    /** RGB bytes, height * width * 3 -> uint8 probabilities, height * width * classes; 255 is certain. */
    fun probabilities(rgb: ByteArray): ByteArray {
        given[0].writeInt8(rgb)
        model.run(given, made)
        return made[0].readInt8()
    }

    /** How probable one class is in each pixel of the photograph, as a mask of its size with a soft edge. */
    fun mask(photo: Bitmap, channel: Int): Bitmap {
        val scores = probabilities(rgb(photo))
        val alpha = ByteArray(height * width) { scores[it * classes + channel] }
        val small = Bitmap.createBitmap(width, height, Bitmap.Config.ALPHA_8)
        small.copyPixelsFromBuffer(padded(alpha, small.rowBytes))
        return Bitmap.createScaledBitmap(small, photo.width, photo.height, true)
    }

    /** The photograph with one class coloured. */
    fun laidOver(photo: Bitmap, channel: Int, colour: Int = Color.argb(160, 230, 25, 75)): Bitmap {
        val shown = photo.copy(Bitmap.Config.ARGB_8888, true)
        Canvas(shown).drawBitmap(mask(photo, channel), 0f, 0f, Paint().apply { color = colour })
        return shown
    }

    private fun rgb(photo: Bitmap): ByteArray {
        val small = Bitmap.createScaledBitmap(photo, width, height, true)
        val pixels = IntArray(width * height).also { small.getPixels(it, 0, width, 0, 0, width, height) }
        return ByteArray(pixels.size * 3) { (pixels[it / 3] shr (16 - 8 * (it % 3))).toByte() }
    }

    /** Rows of an ALPHA_8 bitmap may be longer than they are wide. */
    private fun padded(alpha: ByteArray, stride: Int): ByteBuffer {
        val rows = ByteBuffer.allocate(stride * height)
        for (row in 0 until height) rows.position(row * stride).let { rows.put(alpha, row * width, width) }
        return rows.apply { rewind() }
    }

    override fun close() {
        (given + made).forEach { it.close() }
        model.close()
    }
}

/** MediaPipe: it resizes the photograph itself and reads the labels from the file. */
fun mediaPipeSegmenter(context: Context, checked: CheckedModel): ImageSegmenter {
    val model = ByteBuffer.allocateDirect(checked.bytes.size).order(ByteOrder.nativeOrder()).apply { put(checked.bytes); rewind() }
    return ImageSegmenter.createFromOptions(
        context,
        ImageSegmenter.ImageSegmenterOptions.builder()
            .setBaseOptions(BaseOptions.builder().setModelAssetBuffer(model).build())
            .setRunningMode(RunningMode.IMAGE)
            .setOutputCategoryMask(true)
            .build(),
    )
}

fun ImageSegmenter.mask(photo: Bitmap) = segment(BitmapImageBuilder(photo).build()).categoryMask().get()
